"""Examples from a ``.npz`` or ``.safetensors`` file with the arrays ``x`` and ``y``.

Reading runs no code: npz files are read without pickles, and safetensors has none. Only the
selected examples are read, since a file of a megabyte may claim a gigabyte.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from robaudit.data.npz import npz_rows
from robaudit.data.source import ArrayRows, Source, from_rows
from robaudit.errors import DataError, first_line

SUFFIXES = (".npz", ".safetensors")
_NAMES, _MOST_NAMES, _LONGEST_NAME = "class_names", 1 << 16, 80


def arrayfile(path: Path, split: str) -> Source:
    """The examples of one split of a file.

    The keys are ``x`` and ``y``, which are the split ``test``, or ``x_train``, ``y_train``,
    ``x_test``, ``y_test``. Where one image appears several times, the additional array ``groups``
    (or ``groups_train``, ``groups_test``) holds one number for all examples of an image. An npz
    file may also hold ``class_names``, texts in the order of the labels. For images and labels see
    :func:`robaudit.data.source.from_rows`.

    Raises:
        DataError: the file does not exist, is damaged, or its arrays are not examples.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file")

    npz, named = path.suffix.lower() == ".npz", False

    def wanted(present: Sequence[str]) -> tuple[str, ...]:
        nonlocal named
        x, y = _keys(sorted(present), path, split)
        groups = f"groups{x[1:]}"
        named = npz and _NAMES in present
        further = [groups] if groups in present else []
        return (x, y, *further, *([_NAMES] if named else []))

    images, labels, *further = npz_rows(path, wanted) if npz else _safetensors_rows(path, wanted)
    names = _texts(further.pop(), path) if named else ()
    return replace(from_rows(images, labels, None, str(path), *further), class_names=names)


def _texts(rows: ArrayRows, path: Path) -> tuple[str, ...]:
    if len(rows.shape) != 1 or rows.dtype.kind != "U" or not 0 < rows.shape[0] <= _MOST_NAMES:
        raise DataError(
            f"{path}: {_NAMES} is {rows.dtype} of shape {rows.shape}, not a list of texts",
            "Save it as numpy.array(names), a text for each class in the order of the labels.",
        )
    return tuple(str(name)[:_LONGEST_NAME] for name in rows.read(np.arange(rows.shape[0])))


def _keys(present: Sequence[str], path: Path, split: str) -> tuple[str, str]:
    wanted = (f"x_{split}", f"y_{split}")
    if set(wanted) <= set(present):
        return wanted
    if {"x", "y"} <= set(present):
        if split == "test":
            return "x", "y"
        raise DataError(
            f"{path}: holds x and y, which is the split test, not {split}",
            f"Save {wanted[0]} and {wanted[1]} in it too, or give another file.",
        )
    names = ", ".join(present) or "nothing"
    raise DataError(
        f"{path}: has no arrays x and y (it holds {names})",
        f"Save the images as x and the labels as y, or as {wanted[0]} and {wanted[1]}.",
    )


def _safetensors_rows(
    path: Path, wanted: Callable[[Sequence[str]], tuple[str, ...]]
) -> list[ArrayRows]:
    with _opened(path) as tensors:
        keys = wanted(list(tensors.keys()))
    return [tensor_rows(path, key) for key in keys]


def tensor_rows(path: Path, key: str) -> ArrayRows:
    """The rows of a tensor in a safetensors file.

    Raises:
        DataError: the file is damaged, or has a number type that numpy does not support.
    """
    with _opened(path) as tensors:
        part = tensors.get_slice(key)
        shape = tuple(part.get_shape())
        try:
            # A scalar cannot be sliced; its shape is refused later.
            dtype = _as_numpy(part[:0]).dtype if shape else np.dtype(np.float32)
        except TypeError:
            kind = part.get_dtype()
            message = f"{path}: {key} holds numbers of kind {kind}, which are not read"
            raise DataError(message) from None

    def read(at: NDArray[np.int64]) -> NDArray[Any]:
        out = np.empty((len(at), *shape[1:]), dtype)
        done = 0
        with _opened(path) as tensors:
            part = tensors.get_slice(key)
            for run in np.split(at, np.flatnonzero(np.diff(at) != 1) + 1):
                out[done : done + len(run)] = _as_numpy(part[int(run[0]) : int(run[-1]) + 1])
                done += len(run)
        return out

    return ArrayRows(shape, dtype, read)


def _as_numpy(values: torch.Tensor) -> NDArray[Any]:
    # numpy has no bfloat16, whose numbers float32 holds exactly.
    found: NDArray[Any] = (values.float() if values.dtype is torch.bfloat16 else values).numpy()
    return found


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        with safe_open(path, framework="pt") as tensors:
            yield tensors
    except (SafetensorError, OSError, ValueError) as error:
        raise DataError(
            f"{path}: not a readable safetensors file ({first_line(error)})",
            "Save it with safetensors.torch.save_file({'x': images, 'y': labels}, path).",
        ) from error
