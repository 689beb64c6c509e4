"""Finds or downloads the files of RobustBench's entries. No torch at import."""

from __future__ import annotations

import sys
from pathlib import Path

from robaudit.checkpoints.sources.catalogue import INSTALL, Entry, find_entry
from robaudit.checkpoints.sources.fetching import fetch, hub_file, missing
from robaudit.checkpoints.sources.zoo import zoo_importable, zoo_module
from robaudit.errors import UsageError

DEFAULT_DIR = Path("models")
# RobustBench takes the weights of its ImageNet "Standard" from torchvision.
TORCHVISION_STANDARD = "resnet50:IMAGENET1K_V1"


def files(name: str, folder: Path | None) -> tuple[Path, ...]:
    """The files of ``DATASET/THREAT/NAME``, all of them there.

    Raises:
        UsageError: no such entry.
        CheckpointError: a file is not there.
    """
    return zoo_files(find_entry(name), folder, download=False)


def zoo_files(entry: Entry, folder: Path | None, *, download: bool) -> tuple[Path, ...]:
    """The entry's files, in RobustBench's order; missing ones are downloaded if asked for.

    Raises:
        CheckpointError: a file is not there, or could not be fetched.
    """
    place = (folder or DEFAULT_DIR) / entry.dataset / entry.threat
    targets = tuple(place / name for name in entry.file_names)
    if not entry.drive_ids:
        return targets if targets[0].is_file() else (_of_a_library(entry, targets[0], download),)
    for target, drive_id in zip(targets, entry.drive_ids, strict=True):
        if not target.is_file():
            if not download:
                raise missing(entry.text, target)
            _fetch_from_drive(entry, target, drive_id)
    return targets


def _of_a_library(entry: Entry, target: Path, download: bool) -> Path:
    if is_torchvision(entry):
        from robaudit.checkpoints.sources import torchvision

        (found,) = torchvision.files(TORCHVISION_STANDARD, target.parent, download=download)
        return found
    url = _timm_url(entry)
    beside = target.with_name(url.rpartition("/")[2])
    if beside.is_file():
        return beside
    return hub_file(url, download=download, what=entry.text, expected=target)


def is_torchvision(entry: Entry) -> bool:
    """Whether the weights are torchvision's own."""
    return not entry.drive_ids and entry.name.startswith("Standard")


def _timm_url(entry: Entry) -> str:
    with zoo_importable():
        zoo_module("models")  # registers RobustBench's networks in timm
        import timm

        known = timm.get_pretrained_cfg(entry.timm_name) if timm.is_model(entry.timm_name) else None
    if known is None or not known.url:
        raise UsageError(f"{entry.text}: RobustBench does not say where its weights are", INSTALL)
    return str(known.url)


def _fetch_from_drive(entry: Entry, target: Path, drive_id: str) -> None:
    try:
        import gdown
    except ImportError as error:
        raise UsageError(
            f"gdown, which downloads {entry.text}, is not installed", INSTALL
        ) from error

    def get(path: Path) -> None:
        gdown.download(id=drive_id, output=str(path), quiet=not sys.stderr.isatty())

    fetch(target, entry.text, get, f"Google Drive's file {drive_id} as {target}")
