"""What a data source offers, and the checks that every source's images and labels pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from robaudit.errors import DataError

# Undoing a normalisation in float32 leaves 1.0000001 and -3e-8 behind: that much is rounding.
_ROUNDING = 1e-6


@dataclass(frozen=True)
class Source:
    """One split of a data set, nothing of it converted yet.

    ``take(positions)`` gives float32 images ``(m, c, h, w)`` in ``[0, 1]`` and int64 labels
    ``(m,)``; ``classes`` is ``None`` when the data does not say.
    """

    count: int
    classes: int | None
    take: Callable[[Sequence[int]], tuple[Tensor, Tensor]]


def from_arrays(
    images: NDArray[Any], labels: NDArray[Any], classes: int | None, where: str
) -> Source:
    """A source of arrays in memory, checked as a whole.

    Args:
        images: ``(n, c, h, w)``, ``(n, h, w)`` or, where the shape leaves no doubt,
            ``(n, h, w, c)``; uint8 in 0..255 or floating point in 0..1.
        labels: ``(n,)`` integers from 0.
        classes: how many classes the data set has, or ``None``.
        where: what to call the data in messages.

    Raises:
        DataError: the arrays are not that.
    """
    images = _channels_first(images, where)
    _check_labels(labels, len(images), where)
    _check_values(images, where)

    def take(positions: Sequence[int]) -> tuple[Tensor, Tensor]:
        rows = np.asarray(positions, dtype=np.int64)
        x = torch.from_numpy(np.ascontiguousarray(images[rows], dtype=np.float32))
        x = x / 255 if images.dtype == np.uint8 else x.clamp(0, 1)
        return x, torch.from_numpy(labels[rows].astype(np.int64))

    return Source(len(images), classes, take)


def _channels_first(images: NDArray[Any], where: str) -> NDArray[Any]:
    if images.ndim == 3:
        images = images[:, None]
    if images.ndim != 4:
        raise DataError(
            f"{where}: images have shape {images.shape}",
            "They must be (n, channels, height, width), or (n, height, width) for grey images.",
        )
    if len(images) == 0:
        raise DataError(f"{where}: there are no examples in it", "Save at least one image.")
    if images.size == 0:
        raise DataError(f"{where}: images of shape {images.shape[1:]} have no pixels")
    if images.shape[3] in (1, 3) and images.shape[1] not in (1, 3):
        images = images.transpose(0, 3, 1, 2)
    return images


def _check_labels(labels: NDArray[Any], count: int, where: str) -> None:
    if labels.ndim != 1:
        raise DataError(
            f"{where}: labels have shape {labels.shape}, not ({count},)",
            "Save one class number per image; of one-hot labels take the argmax.",
        )
    if len(labels) != count:
        raise DataError(
            f"{where}: {count} images but {len(labels)} labels", "Save one label per image."
        )
    if labels.dtype.kind not in "iu":
        raise DataError(
            f"{where}: labels are {labels.dtype}, not integers",
            "Save class numbers counted from 0, for example as int64.",
        )
    if labels.min() < 0:
        raise DataError(
            f"{where}: label {int(labels.min())} is negative", "Classes are counted from 0."
        )


def _check_values(images: NDArray[Any], where: str) -> None:
    if images.dtype == np.uint8:
        return
    if images.dtype.kind != "f":
        raise DataError(
            f"{where}: images are {images.dtype}",
            "Save them as uint8 in 0..255 or as floating point in 0..1.",
        )
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
