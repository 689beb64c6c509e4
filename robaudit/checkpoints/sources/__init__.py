"""Checkpoints by name: ``robustbench:cifar10/Linf/NAME``, ``timm:NAME``, ``torchvision:NAME``.

The library that published a network builds it; its weights come from a file that is already here,
read like any other file, without running anything in it; nothing is downloaded unless asked for.
Each library has a module with ``open_network(name, model_dir, download)``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from robaudit.errors import UsageError
from robaudit.types import Norm, parse_norm

if TYPE_CHECKING:
    from torch import nn

    from robaudit.checkpoints.normalization import Normalization

__all__ = [
    "SCHEMES",
    "Opened",
    "files_of",
    "is_source",
    "open_source",
    "ranked_by_corruptions",
    "zoo_threat",
]

SCHEMES = ("robustbench", "timm", "torchvision")


@dataclass(frozen=True)
class Opened:
    """A network from a library, its weights in it, in evaluation mode.

    Attributes:
        network: takes images ``(n, c, h, w)``, in ``[0, 1]`` where ``normalization`` is ``None``.
        architecture: what the library calls it.
        normalization: to be applied before the network; ``None`` where the network has it inside.
        format: of the weights' file.
        sha256: of the weights' file; of several, that of the lines ``hash  name``.
        remarks: what the user should know.
        published: what the library says was measured: ``clean_acc``, ``robust_acc``, ... as
            fractions.
    """

    network: nn.Module
    architecture: str
    normalization: Normalization | None
    format: str
    sha256: str | None
    remarks: tuple[str, ...] = ()
    published: Mapping[str, float | bool | str] = field(default_factory=dict)


def is_source(text: str) -> bool:
    """Whether a checkpoint's name is one in a library, not a file's.

    >>> is_source("timm:resnet50"), is_source("resnet50.pt")
    (True, False)
    """
    return text.partition(":")[0] in SCHEMES and ":" in text


def open_source(
    text: str, *, model_dir: str | Path | None = None, download: bool = False
) -> Opened:
    """The network of that name, with its weights.

    Args:
        text: ``robustbench:DATASET/THREAT/NAME``, ``timm:NAME`` or ``torchvision:NAME[:SET]``.
        model_dir: where the weights' files are: RobustBench's folder, which has
            ``DATASET/THREAT/NAME.pt`` in it (by default ``models``), or any folder for the others,
            which look into their own caches after it.
        download: fetch a file that is not there.

    Raises:
        UsageError: an unknown name, or a library that is not installed.
        CheckpointError: the file is missing, no checkpoint, or not this network's, or could not
            be fetched.
    """
    scheme, name = _parsed(text)
    opened: Opened = import_module(f"{__name__}.{scheme}").open_network(
        name, None if model_dir is None else Path(model_dir), download
    )
    return opened


def files_of(text: str, *, model_dir: str | Path | None = None) -> tuple[Path, ...]:
    """The files :func:`open_source` would read; RobustBench's without torch.

    Raises:
        UsageError: an unknown name, or a library that is not installed.
        CheckpointError: a file is not there.
    """
    scheme, name = _parsed(text)
    module = import_module(f"{__name__}.{'zoo_files' if scheme == 'robustbench' else scheme}")
    found: tuple[Path, ...] = module.files(name, None if model_dir is None else Path(model_dir))
    return found


def zoo_threat(text: str) -> tuple[str, Norm] | None:
    """The data set and the norm that a zoo's name itself states, where it does.

    >>> zoo_threat("robustbench:cifar10/L2/Standard"), zoo_threat("timm:resnet18")
    (('cifar10', 'l2'), None)
    """
    scheme, _, name = text.partition(":")
    parts = name.split("/")
    if scheme != "robustbench" or len(parts) != 3:
        return None
    try:
        return parts[0].lower(), parse_norm(parts[1])
    except UsageError:  # corruptions have no ball
        return None


def ranked_by_corruptions(text: str) -> bool:
    """Whether a zoo's name is that of a network which is ranked by accuracy under corruptions.

    >>> ranked_by_corruptions("robustbench:cifar10/corruptions/Standard")
    True
    """
    scheme, _, name = text.partition(":")
    parts = name.split("/")
    return scheme == "robustbench" and len(parts) == 3 and parts[1].lower() == "corruptions"


def _parsed(text: str) -> tuple[str, str]:
    scheme, _, name = text.partition(":")
    if not is_source(text):
        raise UsageError(
            f"unknown source {text!r}",
            f"Known are {', '.join(f'{scheme}:NAME' for scheme in SCHEMES)}.",
        )
    return scheme, name
