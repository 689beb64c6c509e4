"""Corrupted images as files: ``CORRUPTION/SEVERITY/CLASS/*.JPEG``, the form of ImageNet-C.

The corruptions may also lie in a folder for each category, as ImageNet-C is published: ``noise``,
``blur``, ``weather``, ``digital`` and ``extra``.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

import torch
from torch import Tensor

from robaudit.data.corrupted import Corrupted, check_there, some_of, unknown_of
from robaudit.data.image_folder import Decoder, class_folders, listed
from robaudit.datasets import SEVERITIES
from robaudit.errors import DataError

_CATEGORIES = ("noise", "blur", "weather", "digital", "extra")


def folders_of(folder: Path, corruptions: Collection[str]) -> dict[str, Path]:
    """The folder of each of these corruptions that is there."""
    found = {}
    for name in corruptions:
        places = (folder / name, *(folder / category / name for category in _CATEGORIES))
        place = next((place for place in places if place.is_dir()), None)
        if place is not None:
            found[name] = place
    return found


def corruption_images(
    folder: Path, name: str, corruptions: tuple[str, ...], severities: tuple[int, ...]
) -> Corrupted:
    """Check the folders of corruptions.

    Classes and files are in the order of their names. The files of the first corruption at its
    first severity say which images there are; that each is there at every other is found out when
    it is read.

    Raises:
        DataError: a corruption or a severity is missing, or its classes are not those of the
            others.
    """
    there = _every(folder)
    check_there(str(folder), corruptions, there, "")
    first = there[corruptions[0]] / str(severities[0])
    for corruption in corruptions:
        missing = [str(s) for s in severities if not (there[corruption] / str(s)).is_dir()]
        if missing:
            raise DataError(
                f"{there[corruption]} lacks severity {some_of(missing)}",
                "Complete it, or name those to measure: --severity 1,2 (a part of the mean).",
            )
    names = class_folders(first)
    for corruption in corruptions:
        for severity in severities:
            _check_classes(there[corruption] / str(severity), names, first)
    found = listed(first, names)
    files = [path.relative_to(first) for path, _ in found]
    decoder = Decoder.like(found[0][0])

    def images(corruption: str, severity: int, positions: Sequence[int]) -> Tensor:
        own = there[corruption] / str(severity)
        return decoder.images([own / files[position] for position in positions])

    def labels(positions: Sequence[int]) -> Tensor:
        return torch.tensor([found[i][1] for i in positions], dtype=torch.int64)

    return Corrupted(
        name,
        len(found),
        corruptions,
        severities,
        decoder.shape,
        len(names),
        labels,
        images,
        unknown_of(there, corruptions),
    )


def _every(folder: Path) -> dict[str, Path]:
    """All folders that may be a corruption's, by name: those with a severity in them."""
    levels = set(map(str, SEVERITIES))
    found: dict[str, Path] = {}
    for place in sorted(path for path in folder.iterdir() if path.is_dir()):
        inner = {path.name: path for path in place.iterdir() if path.is_dir()}
        if place.name in _CATEGORIES and not levels & inner.keys():
            found |= inner
        else:
            found[place.name] = place
    return found


def _check_classes(own: Path, names: list[str], first: Path) -> None:
    there = class_folders(own)
    if there == names:
        return
    lacking, more = sorted(set(names) - set(there)), sorted(set(there) - set(names))
    said = f"lacks the class {some_of(lacking)}" if lacking else f"has more: {some_of(more)}"
    raise DataError(
        f"{own} has {len(there)} class folders, {first} has {len(names)}: the former {said}",
        "Every corruption must have the same images at every severity.",
    )
