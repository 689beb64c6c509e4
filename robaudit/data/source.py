"""The interface of data sources, and the checks of their images and labels."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from robaudit.errors import DataError

# Undoing a normalisation in float32 gives values such as 1.0000001 and -3e-8.
_ROUNDING = 1e-6


@dataclass(frozen=True)
class Source:
    """One split of a data set, before conversion to float32.

    Attributes:
        count: number of examples.
        shape: of an image, ``(c, h, w)``.
        labels: positions to labels, int64 ``(m,)``.
        images: positions to images ``(m, c, h, w)``: uint8 in 0 to 255, or float32 in ``[0, 1]``.
        classes: number of classes; ``None`` if unknown.
        decoded: whether images are decoded from files rather than copied.
        groups: positions to int64 ``(m,)``, equal for examples of one image; ``None`` where every
            example is a different image.
        class_names: in the order of the labels; empty where the data has none.
    """

    count: int
    shape: tuple[int, ...]
    labels: Callable[[Sequence[int]], Tensor]
    images: Callable[[Sequence[int]], Tensor]
    classes: int | None
    decoded: bool = False
    groups: Callable[[Sequence[int]], Tensor] | None = None
    class_names: tuple[str, ...] = ()


@dataclass(frozen=True)
class ArrayRows:
    """An array in memory or in a file; ``read`` returns the rows at ascending positions."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    read: Callable[[NDArray[np.int64]], NDArray[Any]]


def from_arrays(
    images: NDArray[Any], labels: NDArray[Any], classes: int | None, where: str
) -> Source:
    """A source of arrays in memory; see :func:`from_rows`."""

    def rows(array: NDArray[Any]) -> ArrayRows:
        def read(at: NDArray[np.int64]) -> NDArray[Any]:
            return array if len(at) == len(array) else array[at]

        return ArrayRows(array.shape, array.dtype, read)

    return from_rows(rows(images), rows(labels), classes, where)


def from_rows(
    images: ArrayRows,
    labels: ArrayRows,
    classes: int | None,
    where: str,
    groups: ArrayRows | None = None,
) -> Source:
    """A source of arrays.

    Args:
        images: ``(n, c, h, w)``, ``(n, h, w)`` or, where the shape is unambiguous,
            ``(n, h, w, c)``; uint8 in 0..255 or floating point in 0..1.
        labels: ``(n,)`` integers from 0.
        classes: number of classes, or ``None``.
        where: name of the data in messages.
        groups: ``(n,)`` integers, one number for all examples of one image.

    Raises:
        DataError: other shapes or types; values are checked when they are read.
    """
    shape, last = _channels_first(images.shape, where)
    _check_labels(labels, images.shape[0], where)
    if images.dtype != np.uint8 and images.dtype.kind != "f":
        raise DataError(
            f"{where}: images are {images.dtype}",
            "Save them as uint8 in 0..255 or as floating point in 0..1.",
        )

    def read(positions: Sequence[int]) -> Tensor:
        found = images.read(np.asarray(positions, dtype=np.int64))
        found = found.transpose(0, 3, 1, 2) if last else found.reshape(-1, *shape)
        if found.dtype == np.uint8:
            return torch.from_numpy(np.require(found, requirements=["C", "W"]))
        _check_values(found, where)
        return torch.from_numpy(np.require(found, np.float32, ["C", "W"])).clamp(0, 1)

    def read_labels(positions: Sequence[int]) -> Tensor:
        found = labels.read(np.asarray(positions, dtype=np.int64))
        if found.min() < 0:
            raise DataError(
                f"{where}: label {int(found.min())} is negative", "Classes are counted from 0."
            )
        return torch.from_numpy(found.astype(np.int64))

    def read_groups(positions: Sequence[int]) -> Tensor:
        assert groups is not None
        return torch.from_numpy(groups.read(np.asarray(positions, dtype=np.int64)).astype(np.int64))

    if groups is not None and (groups.shape != (images.shape[0],) or groups.dtype.kind not in "iu"):
        raise DataError(
            f"{where}: groups are {groups.dtype} of shape {groups.shape}, not {images.shape[0]} "
            "integers",
            "Save one integer for each example, the same for all examples of one image.",
        )
    return Source(
        images.shape[0],
        shape,
        read_labels,
        read,
        classes,
        groups=None if groups is None else read_groups,
    )


def _channels_first(shape: tuple[int, ...], where: str) -> tuple[tuple[int, ...], bool]:
    """``(c, h, w)``, and whether the channels come last."""
    if len(shape) not in (3, 4):
        raise DataError(
            f"{where}: images have shape {shape}",
            "They must be (n, channels, height, width), or (n, height, width) for grey images.",
        )
    if shape[0] == 0:
        raise DataError(f"{where}: there are no examples in it", "Save at least one image.")
    if math.prod(shape) == 0:
        raise DataError(f"{where}: images of shape {shape[1:]} have no pixels")
    if len(shape) == 3:
        return (1, *shape[1:]), False
    last = shape[3] in (1, 3) and shape[1] not in (1, 3)
    return ((shape[3], shape[1], shape[2]) if last else shape[1:]), last


def _check_labels(labels: ArrayRows, count: int, where: str) -> None:
    if len(labels.shape) != 1:
        raise DataError(
            f"{where}: labels have shape {labels.shape}, not ({count},)",
            "Save one class number per image; of one-hot labels take the argmax.",
        )
    if labels.shape[0] != count:
        raise DataError(
            f"{where}: {count} images but {labels.shape[0]} labels", "Save one label per image."
        )
    if labels.dtype.kind not in "iu":
        raise DataError(
            f"{where}: labels are {labels.dtype}, not integers",
            "Save class numbers counted from 0, for example as int64.",
        )


def _check_values(images: NDArray[Any], where: str) -> None:
    low, high = float(images.min()), float(images.max())
    # A NaN anywhere makes the minimum NaN; an infinity shows at one of the ends.
    if not np.isfinite(low) or not np.isfinite(high):
        raise DataError(f"{where}: images hold values that are not finite (NaN or infinity)")
    if low < -_ROUNDING or high > 1 + _ROUNDING:
        advice = (
            "Divide images in 0..255 by 255."
            if low >= 0
            else "Undo the normalisation: it belongs inside the classifier (--normalize)."
        )
        raise DataError(f"{where}: images lie in [{low:g}, {high:g}], not in [0, 1]", advice)
