"""``timm:NAME[.TAG]``: timm builds it, its file is read safely."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from robaudit.checkpoints.files.display import shown
from robaudit.checkpoints.files.reading import read_state_dict
from robaudit.checkpoints.normalization import spelled
from robaudit.checkpoints.sources import Opened
from robaudit.checkpoints.sources.fetching import (
    hub_file,
    hugging_face_file,
    local_file,
    misfit,
)
from robaudit.errors import UsageError, did_you_mean

INSTALL = "Install it: pip install 'robaudit[timm]'"
_SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")
_HUB_NAMES = ("model.safetensors", "pytorch_model.bin")


def open_network(name: str, model_dir: Path | None, download: bool) -> Opened:
    """See :func:`robaudit.checkpoints.sources.open_source`."""
    timm = _timm()
    full, cfg = _configuration(timm, name)
    (path,) = files(name, model_dir, download=download)
    read = read_state_dict(path, hash=True)
    network = _built(timm, full, cfg, read.state_dict, shown(path, 200))
    return Opened(
        network=network.eval(),
        architecture=f"timm:{full}",
        normalization=spelled(tuple(cfg.mean), tuple(cfg.std)),
        format=read.format,
        sha256=read.sha256,
        remarks=(*read.remarks, _preparation(cfg)),
    )


def files(name: str, model_dir: Path | None, *, download: bool = False) -> tuple[Path, ...]:
    """The file of ``NAME[.TAG]``: in ``model_dir`` by that name or its own, or cached.

    Raises:
        UsageError: timm is not installed, or has no such network or weights.
        CheckpointError: the file is not there, or could not be fetched.
    """
    full, cfg = _configuration(_timm(), name)
    own = str(cfg.url or "").rpartition("/")[2]
    named = tuple(dict.fromkeys(stem + suffix for stem in (full, name) for suffix in _SUFFIXES))
    found = local_file(model_dir, (*named, own) if own else named)
    if found is not None:
        return (found,)
    what = f"timm:{name}"
    expected = named[0] if model_dir is None else model_dir / named[0]
    if cfg.hf_hub_id:
        repository, _, revision = str(cfg.hf_hub_id).partition("@")
        names = _HUB_NAMES
        if cfg.hf_hub_filename:
            stem = str(cfg.hf_hub_filename).rpartition(".")[0]
            names = (f"{stem}.safetensors", str(cfg.hf_hub_filename))
        where = (repository, revision or None, names)
        return (hugging_face_file(*where, download=download, what=what, expected=expected),)
    if not cfg.url:
        raise UsageError(f"timm has no weights for {full}", f"Use your own: --arch timm:{full}.")
    return (hub_file(str(cfg.url), download=download, what=what, expected=expected),)


def _timm() -> ModuleType:
    try:
        import timm
    except ImportError as error:
        raise UsageError("timm is not installed", INSTALL) from error
    module: ModuleType = timm
    return module


def _configuration(timm: Any, name: str) -> tuple[str, Any]:
    """The name with its tag, and timm's configuration of those weights."""
    base, _, tag = name.partition(".")
    if not timm.is_model(base):
        raise UsageError(
            f"timm has no network {base!r}{did_you_mean(base, timm.list_models(), 3)}",
            "timm.list_models(pretrained=True) names those with weights.",
        )
    try:
        cfg = timm.get_pretrained_cfg(name, allow_unregistered=False)
    except RuntimeError:
        tags = [entry.partition(".")[2] for entry in timm.list_pretrained(f"{base}.*")]
        raise UsageError(
            f"timm has no weights {tag!r} for {base}", f"Known are {', '.join(tags) or 'none'}."
        ) from None
    full = f"{base}.{cfg.tag}" if cfg.tag else base
    if not cfg.num_classes:
        raise UsageError(
            f"timm:{full} gives features, not logits: it was published without a classifier",
            "Choose weights that were fine-tuned for classification.",
        )
    return full, cfg


def _built(timm: Any, full: str, cfg: Any, state: dict[str, Tensor], source: str) -> nn.Module:
    """Loads with timm's own code, which converts older keys, from tensors, without a download."""
    try:
        with torch.random.fork_rng(devices=[]):
            network: nn.Module = timm.create_model(
                full, pretrained=True, pretrained_cfg_overlay={"state_dict": state}
            )
    except (RuntimeError, ValueError, KeyError, AttributeError) as error:
        raise misfit(source, f"timm's {full}", error) from error
    # timm keeps this configuration: remove the second reference to the weights.
    made: Any = network
    made.pretrained_cfg = {k: v for k, v in made.pretrained_cfg.items() if k != "state_dict"}
    made.default_cfg = made.pretrained_cfg
    return network


def _preparation(cfg: Any) -> str:
    size = cfg.test_input_size or cfg.input_size
    crop = cfg.test_crop_pct or cfg.crop_pct
    return (
        f"timm evaluates it on {size[1]}x{size[2]} pixels, the centre {crop:.1%} of images resized "
        f"by {cfg.interpolation} interpolation: prepare your images the same "
        "way"
    )
