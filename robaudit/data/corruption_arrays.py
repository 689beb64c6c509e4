"""Corrupted images as arrays: ``CORRUPTION.npy`` for each corruption, and ``labels.npy``.

This is the form of CIFAR-10-C and CIFAR-100-C: each array is ``(5 n, h, w, c)`` uint8, the ``n``
images at severity 1 first, then at severity 2, and so on. Arrays stay on disk and are read row by
row; pickles in them are refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from robaudit.data.corrupted import Corrupted, check_there, unknown_of
from robaudit.datasets import DATA_SETS, SEVERITIES
from robaudit.errors import DataError, first_line
from robaudit.outcomes import UNREADABLE

LABELS = "labels.npy"
_LAYOUT = "It must be (5 n, height, width, channels), the n images of severity 1 first."


def corruption_arrays(
    folder: Path,
    name: str,
    corruptions: tuple[str, ...],
    severities: tuple[int, ...],
    clean: str | None,
) -> Corrupted:
    """Check the arrays of a folder.

    Args:
        clean: the data set whose images they are, where that is known.

    Raises:
        DataError: a file is missing, is no such array, or differs from the others.
    """
    there = {path.stem for path in folder.glob("*.npy")} - {Path(LABELS).stem}
    check_there(str(folder), corruptions, there, ".npy")
    if not (folder / LABELS).is_file():
        raise DataError(f"{folder} lacks {LABELS}", "It has the class of each image.")
    arrays = {one: _images(folder / f"{one}.npy") for one in corruptions}
    first = corruptions[0]
    for one, array in arrays.items():
        if array.shape != arrays[first].shape:
            raise DataError(
                f"{folder / one}.npy has shape {array.shape}, but {first}.npy "
                f"{arrays[first].shape}",
                "All corruptions must have the same images: fetch the file again.",
            )
    count = len(arrays[first]) // len(SEVERITIES)
    height, width, channels = arrays[first].shape[1:]
    shape, classes = (channels, height, width), None
    if clean is not None:
        known = DATA_SETS[clean]
        classes = known.classes
        if shape != known.image:
            raise DataError(
                f"{folder / first}.npy has images of {height}x{width}x{channels}, not those of "
                f"{clean}",
                "Of another set, name the folder as --data corruptions:DIR.",
            )
    labels = _labels(folder / LABELS, count, classes)

    def images(corruption: str, severity: int, positions: Sequence[int]) -> Tensor:
        rows = (severity - 1) * count + np.asarray(positions, dtype=np.int64)
        try:
            found = arrays[corruption][rows].transpose(0, 3, 1, 2)
        except UNREADABLE as error:
            raise _unreadable(folder / f"{corruption}.npy", error) from error
        return torch.from_numpy(np.ascontiguousarray(found))

    return Corrupted(
        name,
        count,
        corruptions,
        severities,
        shape,
        classes,
        lambda positions: torch.from_numpy(labels[np.asarray(positions, dtype=np.int64)]),
        images,
        tuple(f"{one}.npy" for one in unknown_of(there, corruptions)),
    )


def _images(path: Path) -> NDArray[Any]:
    array = _mapped(path)
    if array.dtype != np.uint8:
        raise DataError(
            f"{path} holds {array.dtype}, not uint8", "Images are bytes in 0..255: fetch it again."
        )
    if array.ndim != 4 or array.shape[3] not in (1, 3) or 0 in array.shape:
        raise DataError(f"{path} has shape {array.shape}", _LAYOUT)
    if len(array) % len(SEVERITIES):
        raise DataError(
            f"{path} has {len(array)} images, which is no multiple of {len(SEVERITIES)} severities",
            _LAYOUT,
        )
    return array


def _labels(path: Path, count: int, classes: int | None) -> NDArray[np.int64]:
    """One label an image: the file has them once, or once for each severity."""
    array = _mapped(path)
    whole = count * len(SEVERITIES)
    if array.ndim != 1 or array.dtype.kind not in "iu" or len(array) not in (count, whole):
        raise DataError(
            f"{path} holds {array.dtype} of shape {array.shape}, not {count} or {whole} integers",
            "It has a class number for each image, once or once for each severity.",
        )
    labels = np.array(array, dtype=np.int64)
    if (labels.reshape(-1, count) != labels[:count]).any():
        raise DataError(
            f"{path}: labels differ from severity to severity",
            "Each severity must have the same images in the same order.",
        )
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or (classes is not None and high >= classes):
        wrong = low if low < 0 else high
        of = "counted from 0" if classes is None else f"0 to {classes - 1}"
        raise DataError(f"{path}: there is a label {wrong}, but classes are {of}")
    return labels[:count]


def _mapped(path: Path) -> NDArray[Any]:
    try:
        found: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except UNREADABLE as error:
        raise _unreadable(path, error) from error
    if not isinstance(found, np.ndarray):  # an npz file under another name
        raise DataError(f"{path} is not a single array", "Save it with numpy.save.")
    return found


def _unreadable(path: Path, error: Exception) -> DataError:
    return DataError(
        f"{path}: not a readable npy file ({first_line(error)})",
        "Fetch it again; arrays of objects are not read.",
    )
