"""Writes the table of torchvision's and timm's models: python tools/make_library_table.py.

Run by hand where both libraries are installed; every model is built on the meta device, so nothing
is downloaded. A model is built twice, with other classes, channels and image size; what changes in
its shapes tells the places that the table leaves out. Models that are the same function under
several names (trained at another size or on other data) are written once, under the shortest.
"""

from __future__ import annotations

import hashlib
import sys
import warnings
from collections import defaultdict
from pathlib import Path
from types import BuiltinFunctionType, FunctionType

import timm
import torch
import torchvision
from torch import nn

from robaudit.checkpoints.architectures.library import TABLE, Places
from robaudit.checkpoints.architectures.library_models import timm_model, torchvision_model
from robaudit.checkpoints.architectures.sketching import sketch as sketched

FACTORIES = {"torchvision": torchvision_model, "timm": timm_model}
CLASSES = (1013, 1019)
MAX_NAMES = 6
MAX_COMPARED = 150_000_000
# In evaluation these do nothing; the other names below do not enter a forward pass.
IDLE = {"Identity", "Dropout", "Dropout2d", "DropPath", "StochasticDepth"}
UNUSED = {
    "training", "img_size", "grid_size", "num_patches", "input_size", "feat_size", "resolution",
    "input_resolution", "drop_prob", "drop_path", "drop_rate", "attn_drop_rate", "drop_path_rate",
    "init_values", "in_chans", "num_classes", "grad_checkpointing", "call_super_init", "momentum",
    "dump_patches", "image_size", "stage_resolution", "num_batches_tracked", "seq_length",
}  # fmt: skip


def names() -> list[str]:
    vision = torchvision.models.list_models(module=torchvision.models)
    return [f"torchvision:{n}" for n in vision] + [f"timm:{n}" for n in timm.list_models()]


def sketch(name: str, classes: int, channels: int = 3, image_size: int = 0) -> nn.Module:
    library, _, model = name.partition(":")
    return sketched(lambda: FACTORIES[library](model, classes, channels, image_size))


def shapes_of(network: nn.Module) -> dict[str, tuple[int, ...]]:
    return {
        key: tuple(value.shape)
        for key, value in network.state_dict().items()
        if not key.endswith("num_batches_tracked")
    }


def native_size(name: str, network: nn.Module) -> int:
    if name.startswith("timm:"):
        return int(network.default_cfg["input_size"][-1])
    return int(getattr(network, "image_size", 224))


def varied(
    name: str, base: dict[str, tuple[int, ...]], sizes: tuple[int, ...]
) -> tuple[dict[str, tuple[int, ...]], int]:
    """Shapes with other classes and, where the model allows it, other channels and size."""
    for channels in (1, 3):
        for size in sizes:
            try:
                other = shapes_of(sketch(name, CLASSES[1], channels, size))
            except Exception:  # noqa: S112 - whatever it is, this model cannot be varied so
                continue
            if set(other) == set(base):
                return other, channels
    raise ValueError("cannot be varied")


def places(name: str, base: dict[str, tuple[int, ...]], sizes: tuple[int, ...]) -> Places:
    other, channels = varied(name, base, sizes)
    head, stem, sized = [], [], set()
    for key, shape in base.items():
        for dim, (a, b) in enumerate(zip(shape, other[key], strict=True)):
            if (a, b) == CLASSES:
                head.append((key, dim))
            elif a != b and (a, b) == (3, channels):
                stem.append((key, dim))
            elif a != b:
                sized.add(key.rpartition(".")[2])
    if not head:
        raise ValueError("no head")
    if sized & {"weight", "bias"} and sizes != (0,):  # masking those would mask the whole model
        return places(name, base, (0,))
    return Places(tuple(head), tuple(stem), frozenset(sized))


def function_of(network: nn.Module) -> str:
    """A digest of the modules and their plain attributes: the same for the same function."""
    lines = []
    for path, module in network.named_modules():
        kind = type(module).__name__
        if kind in IDLE:
            lines.append(f"{path} idle")
            continue
        plain = {
            key: value.__name__ if isinstance(value, FunctionType | BuiltinFunctionType) else value
            for key, value in vars(module).items()
            if key not in UNUSED
            and isinstance(
                value,
                int | float | str | bool | tuple | FunctionType | BuiltinFunctionType | None,
            )
        }
        lines.append(f"{path} {kind} {sorted(plain.items())}")
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


@torch.no_grad()
def logits_of(name: str) -> torch.Tensor | None:
    """Logits of a fixed image under weights that depend on the key alone, in double precision."""
    if sum(p.numel() for p in sketch(name, 10).parameters()) > MAX_COMPARED:
        return None
    library, _, model = name.partition(":")
    network = FACTORIES[library](model, 10).eval().double()
    for key, value in network.state_dict().items():
        if value.is_floating_point():
            seed = int(hashlib.sha256(key.encode()).hexdigest()[:8], 16)
            noise = torch.rand(value.shape, generator=torch.Generator().manual_seed(seed))
            fan = value[0].numel() if value.ndim > 1 else 1
            value.copy_((noise - 0.4) * fan**-0.5 if value.ndim > 1 else 0.5 + noise)
    size = native_size(name, network)
    image = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    return network(image.double())


def without_twins(group: list[str]) -> list[str]:
    """Without timm's models that compute what torchvision's does."""
    vision = [n for n in group if n.startswith("torchvision:")]
    rest = [n for n in group if n not in vision]
    if not vision or not rest:
        return group
    reference = logits_of(vision[0])
    kept = []
    for name in rest:
        try:
            own = logits_of(name)
        except Exception as error:
            print("  cannot run", name, str(error)[:80])
            own = None
        known = reference is not None and own is not None and reference.shape == own.shape
        if not known or not (reference - own).norm() < 1e-6 * reference.norm():
            kept.append(name)
    print("twins of", vision, "dropped", sorted(set(rest) - set(kept)), "kept", kept)
    return [*vision, *kept]


def main() -> None:
    warnings.simplefilter("ignore")
    limit = int(sys.argv[1]) if len(sys.argv) > 1 else 1
    table: dict[Places, dict[str, dict[str, list[str]]]] = defaultdict(dict)
    for name in names()[::limit]:
        try:
            network = sketch(name, CLASSES[0])
            base = shapes_of(network)
            where = places(name, base, (2 * native_size(name, network), 0))
            signature = where.signature(base)
            assert signature is not None
        except Exception as error:
            print("left out:", name, type(error).__name__, str(error)[:100])
            continue
        same = table[where].setdefault(signature, {})
        same.setdefault(function_of(network), []).append(name)
    lines = [f"# torchvision {torchvision.__version__}, timm {timm.__version__}"]
    for where in sorted(table, key=lambda p: (p.head, p.stem, sorted(p.sized))):
        head, stem = (" ".join(f"{k}:{d}" for k, d in part) for part in (where.head, where.stem))
        lines.append(f"@ {head}\t{stem}\t{' '.join(sorted(where.sized))}")
        for signature, functions in sorted(table[where].items()):
            # The function with the most names is the most usual one.
            groups = sorted(
                functions.values(),
                key=lambda g: (not g[0].startswith("torchvision:"), -len(g), len(g[0]), g[0]),
            )
            chosen = [min(group, key=lambda n: (len(n), n)) for group in groups]
            lines.append(f"{signature}\t{' '.join(without_twins(chosen)[:MAX_NAMES])}")
    here = Path(__file__).parents[1] / "robaudit/checkpoints/architectures" / TABLE
    here.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(len(lines), "lines,", here.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
