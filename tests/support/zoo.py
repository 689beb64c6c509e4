"""RobustBench's zoo in tests: how its files look, and its networks without their memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from robaudit.checkpoints.sources.catalogue import Entry, catalogue
from robaudit.checkpoints.sources.published import published
from robaudit.checkpoints.sources.robustbench import FilePart, build, parts_of
from robaudit.checkpoints.sources.zoo_files import is_torchvision
from robaudit.errors import CheckpointError

LARGE = 60_000_000
"""Networks from this many parameters on are checked by keys and shapes alone."""

_FILLED = {torch.empty, torch.zeros, torch.ones, torch.full, torch.rand, torch.randn}
_NORMALISERS = {"mu", "sigma", "mean", "std"}


class Sketch(TorchFunctionMode):
    """Makes weights without memory, and everything else for real.

    Under ``torch.device("meta")`` a network could not read the numbers it computes about itself,
    such as its rates of stochastic depth.
    """

    def __torch_function__(self, function, types, args=(), kwargs=None):
        given = dict(kwargs or {})
        if function in _FILLED and given.get("device") is None:
            given["device"] = "meta"
        return function(*args, **given)


def sketch(entry: Entry) -> nn.Module:
    """The entry's network, its weights on the meta device where it can be made without them."""
    try:
        with Sketch():
            return build(entry)
    except CheckpointError:  # orthogonal weights are computed
        return build(entry)


def parameters(network: nn.Module) -> int:
    """How many numbers it was trained with."""
    return sum(parameter.numel() for parameter in network.parameters())


def parts(entry: Entry, network: nn.Module) -> list[tuple[FilePart, ...]]:
    """The networks whose weights each of the entry's files holds."""
    return [tuple(of_file) for of_file in parts_of(network, len(entry.file_names))]


def published_form(network: nn.Module, form: int) -> Any:
    """A file's object in one of the forms that the zoo's files have."""
    own: dict[str, Tensor] = network.state_dict()
    if form == 0:
        return own
    if form == 1:
        return {"state_dict": {f"module.{key}": value for key, value in own.items()}, "epoch": 3}
    if form == 2:
        return {"last": {f"model.{key}": value for key, value in own.items()}, "best": own}
    return {"state_dict": without_normalisation(network)}


def without_normalisation(network: nn.Module) -> dict[str, Tensor]:
    """The state dict before somebody put a normalisation around or into the network."""
    inner = network.get_submodule("model") if hasattr(network, "normalize") else network
    return {
        key: value
        for key, value in inner.state_dict().items()
        if key.rpartition(".")[2] not in _NORMALISERS
    }


def write_files(entry: Entry, network: nn.Module, folder: Path, form: int) -> None:
    """Save the network's weights as the entry's files."""
    place = folder / entry.dataset / entry.threat
    place.mkdir(parents=True, exist_ok=True)
    for name, of_file in zip(entry.file_names, parts(entry, network), strict=True):
        if len(of_file) == 1:
            content = published_form(of_file[0].network, form)
        else:
            content = {str(part.member): part.network.state_dict() for part in of_file}
        torch.save(content, place / name)


def unsettle(network: nn.Module) -> None:
    """Give the running statistics values that no fresh network has."""
    for name, buffer in network.named_buffers():
        if name.endswith("running_mean"):
            buffer.normal_(0, 0.1)
        elif name.endswith("running_var"):
            buffer.uniform_(0.5, 1.5)


def table_file() -> Path:
    """Where the table of the zoo is committed."""
    return Path(__file__).resolve().parents[2] / "docs" / "reference" / "zoo.md"


def table() -> str:
    """A row for every entry of the installed zoo: its size, how it is checked, its files."""
    rows = ["| entry | network | parameters | checked by | weights |", "|---|---|---:|---|---|"]
    for entry in catalogue():
        count = parameters(sketch(entry))
        if entry.ensemble:
            source = f"{len(entry.drive_ids)} files"
        elif entry.drive_ids:
            source = "1 file"
        else:
            source = "torchvision" if is_torchvision(entry) else "RobustBench's timm registry"
        rows.append(
            f"| `{entry.dataset}/{entry.threat}/{entry.name}` "
            f"| {published(entry).get('architecture', '')} "
            f"| {count / 1e6:.1f} M | {'keys and shapes' if count >= LARGE else 'logits'} "
            f"| {source} |"
        )
    return "\n".join(rows) + "\n"
