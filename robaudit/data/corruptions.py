"""Folders of corrupted test images: CIFAR-10-C, CIFAR-100-C, ImageNet-C and others of their form.

Each corruption has the same images, in the same order, at five severities. A folder holds an array
for each corruption (:mod:`robaudit.data.corruption_arrays`) or a folder of image files for each
(:mod:`robaudit.data.corruption_images`). Reading them runs no code.

D. Hendrycks and T. Dietterich, "Benchmarking neural network robustness to common corruptions and
perturbations", ICLR 2019.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from robaudit.data.corrupted import Corrupted, chosen
from robaudit.data.corruption_arrays import LABELS, corruption_arrays
from robaudit.data.corruption_images import corruption_images, folders_of
from robaudit.data.places import usual_places
from robaudit.data.source import Source
from robaudit.datasets import CORRUPTED, CORRUPTED_FOLDER, CORRUPTIONS, SEVERITIES
from robaudit.errors import DataError

__all__ = ["Corrupted", "find_corrupted", "mildest", "open_corrupted"]


def open_corrupted(
    name: str,
    data_dir: Path | None = None,
    corruptions: Sequence[str] = (),
    severities: Sequence[int] = (),
) -> Corrupted:
    """Find and check a folder of corrupted images.

    Args:
        name: ``cifar10-c``, ``cifar100-c`` or ``imagenet-c``; ``corruptions:DIR``; or a data set's
            own name, for its corrupted test images.
        data_dir: where to look for it: the folder itself, or one above it. [default: the usual
            places]
        corruptions: those that are wanted; the fifteen if none are named.
        severities: those that are wanted, from 1 to 5; all if none are named.

    Raises:
        UsageError: an unknown severity.
        DataError: the folder is nowhere, or something in it is missing or wrong.
    """
    folder = find_corrupted(name, data_dir)
    if folder is None:
        raise _nowhere(name, data_dir)
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder")
    wanted = chosen(corruptions, severities)
    if (folder / LABELS).exists() or any(folder.glob("*.npy")):
        known = next((c for n, c in CORRUPTED.items() if name in (n, c.clean)), None)
        return corruption_arrays(folder, name, *wanted, None if known is None else known.clean)
    return corruption_images(folder, name, *wanted)


def find_corrupted(name: str, data_dir: Path | None = None) -> Path | None:
    """The folder of a set, or ``None``; see :func:`open_corrupted`."""
    if name.startswith(CORRUPTED_FOLDER):
        return Path(name.removeprefix(CORRUPTED_FOLDER)).expanduser()
    names = dict.fromkeys(_folder_names(name))
    for place in (data_dir,) if data_dir is not None else usual_places():
        if _holds_corruptions(place):
            return place
        if (found := next((place / n for n in names if (place / n).is_dir()), None)) is not None:
            return found
    return None


def mildest(name: str, split: str, data_dir: Path | None = None) -> Source:
    """One version of each image, at the least severity; its corruption changes from image to image.

    It stands in for the clean images where they are not at hand. Corruptions that the folder lacks
    are passed over.

    Raises:
        DataError: the split is not ``test``, or see :func:`open_corrupted`.
    """
    if split != "test":
        raise DataError(f"{name}: corrupted images are of the split test, not {split}")
    folder = find_corrupted(name, data_dir)
    there = [] if folder is None or not folder.is_dir() else _there(folder)
    corrupted = open_corrupted(name, data_dir, there, SEVERITIES[:1])
    least, kinds = SEVERITIES[0], corrupted.corruptions

    def images(positions: Sequence[int]) -> Tensor:
        found = torch.empty(len(positions), *corrupted.shape, dtype=torch.uint8)
        for at, kind in enumerate(kinds):
            mine = [row for row, place in enumerate(positions) if place % len(kinds) == at]
            if mine:
                rows = [positions[row] for row in mine]
                found[mine] = corrupted.images(kind, least, rows)
        return found

    return Source(
        corrupted.count,
        corrupted.shape,
        corrupted.labels,
        images,
        corrupted.classes,
        decoded=True,
    )


def _folder_names(name: str) -> Iterator[str]:
    for own, known in CORRUPTED.items():
        if name in (own, known.clean):
            yield from (known.folder, known.folder.lower())
    yield name if name.endswith("-c") else f"{name}-c"


def _holds_corruptions(folder: Path) -> bool:
    return folder.is_dir() and ((folder / LABELS).is_file() or bool(_there(folder)))


def _there(folder: Path) -> list[str]:
    """The corruptions, of the fifteen, that a folder has."""
    folders = folders_of(folder, CORRUPTIONS)
    least = str(SEVERITIES[0])
    return [
        one
        for one in CORRUPTIONS
        if (folder / f"{one}.npy").is_file() or (one in folders and (folders[one] / least).is_dir())
    ]


def _nowhere(name: str, data_dir: Path | None) -> DataError:
    folder = next(_folder_names(name))
    place = "./data, ~/data and ROBAUDIT_DATA_DIR" if data_dir is None else str(data_dir)
    return DataError(
        f"no corrupted images of {name}: there is no folder {folder} in {place}",
        "Name it, or the folder that has it, as --data-dir; any other as --data corruptions:DIR.",
    )
