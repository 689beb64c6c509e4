"""Checkpoints by name: ``robustbench:cifar10/Linf/NAME``, ``timm:NAME``, ``torchvision:NAME``.

The library that published a network builds it; its weights come from a file already here, read
like any other file, without running anything in it; nothing is fetched without being asked for.
"""

from __future__ import annotations

from pathlib import Path

from robaudit.checkpoints.sources.opened import Opened
from robaudit.errors import UsageError
from robaudit.types import Norm, parse_norm

__all__ = ["SCHEMES", "Opened", "files_of", "is_source", "open_source", "zoo_threat"]

SCHEMES = ("robustbench", "timm", "torchvision")


def is_source(text: str) -> bool:
    """Whether a checkpoint's name is one in a library, not a file's.

    >>> is_source("timm:resnet50"), is_source("resnet50.pt")
    (True, False)
    """
    return text.partition(":")[0] in SCHEMES and ":" in text


def open_source(
    text: str, *, model_dir: str | Path | None = None, download: bool = False
) -> Opened:
    """The network of that name, its weights in it.

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
    folder = None if model_dir is None else Path(model_dir)
    scheme, _, name = text.partition(":")
    if scheme == "robustbench":
        from robaudit.checkpoints.sources.robustbench import open_robustbench

        return open_robustbench(name, folder, download)
    if scheme == "timm":
        from robaudit.checkpoints.sources.timm import open_timm

        return open_timm(name, folder, download)
    if scheme == "torchvision":
        from robaudit.checkpoints.sources.torchvision import open_torchvision

        return open_torchvision(name, folder, download)
    raise _unknown(text)


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


def files_of(text: str, *, model_dir: str | Path | None = None) -> tuple[Path, ...]:
    """The files :func:`open_source` would read; RobustBench's without torch.

    Raises:
        UsageError: an unknown name, or a library that is not installed.
        CheckpointError: a file is not there.
    """
    folder = None if model_dir is None else Path(model_dir)
    scheme, _, name = text.partition(":")
    if scheme == "robustbench":
        from robaudit.checkpoints.sources.zoo_files import robustbench_files

        return robustbench_files(name, folder)
    if scheme == "timm":
        from robaudit.checkpoints.sources.timm import timm_file

        return (timm_file(name, folder),)
    if scheme == "torchvision":
        from robaudit.checkpoints.sources.torchvision import torchvision_file

        return (torchvision_file(name, folder),)
    raise _unknown(text)


def _unknown(text: str) -> UsageError:
    return UsageError(
        f"unknown source {text!r}",
        f"Known are {', '.join(f'{scheme}:NAME' for scheme in SCHEMES)}.",
    )
