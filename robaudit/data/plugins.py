"""Data sets registered by packages as entry points of the group ``robaudit.datasets``."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from robaudit.data.source import Source, from_arrays
from robaudit.errors import DataError, error_line

GROUP = "robaudit.datasets"
_GIVES = (
    "It is called with (split, data_dir) and returns the images, (n, c, h, w) as uint8 or as "
    "floats in [0, 1], and the labels, (n,)."
)


def registered() -> tuple[str, ...]:
    """The names that installed packages register, in alphabetical order."""
    return tuple(sorted({point.name for point in entry_points(group=GROUP)}))


def plugin_set(name: str, split: str, data_dir: Path | None) -> Source:
    """One split of a registered data set.

    Raises:
        DataError: its code fails, or returns no examples.
    """
    point = next(iter(entry_points(group=GROUP, name=name)))
    where = f"{name} ({point.value})"
    images, labels = _called(point, split, data_dir, where)
    return from_arrays(_array(images, where), _array(labels, where), None, name)


def _called(
    point: EntryPoint, split: str, data_dir: Path | None, where: str
) -> tuple[object, object]:
    try:
        given = point.load()(split, data_dir)
    except (Exception, SystemExit) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(
            f"the data set {where} failed: {error_line(error)}",
            "It is the code of an installed package: run it in Python to see where.",
        ) from error
    if not isinstance(given, Sequence) or len(given) != 2:
        raise DataError(
            f"the data set {where} gave a {type(given).__name__}, not images and labels", _GIVES
        )
    return given[0], given[1]


def _array(values: object, where: str) -> NDArray[Any]:
    if isinstance(values, torch.Tensor):
        # numpy has no bfloat16, whose numbers float32 holds exactly.
        values = values.detach().cpu()
        widened = values.float() if values.is_floating_point() else values
        array: NDArray[Any] = widened.numpy()
        return array
    found = np.asarray(values)
    if found.dtype == object:
        raise DataError(f"the data set {where} gave arrays of objects", _GIVES)
    return found
