"""Examples from a ``.npz`` or ``.safetensors`` file with the arrays ``x`` and ``y``.

Neither is read in a way that could run code: npz without pickles, safetensors has none.
"""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from torch import Tensor

from robaudit.data.source import Source, from_arrays
from robaudit.errors import DataError

SUFFIXES = (".npz", ".safetensors")
_SAVE = "Save it with numpy.savez(path, x=images, y=labels); arrays of objects are not read."
# What numpy and zipfile raise on files that are cut off, altered or something else altogether.
_DAMAGED = (
    ValueError,
    EOFError,
    OSError,
    KeyError,
    MemoryError,
    NotImplementedError,
    zipfile.BadZipFile,
    zlib.error,
)


def arrayfile(path: Path, split: str) -> Source:
    """The examples of one split of a file.

    The keys are ``x`` and ``y``, which make the split ``test``, or ``x_train``, ``y_train``,
    ``x_test``, ``y_test``. Images and labels as :func:`robaudit.data.source.from_arrays` takes
    them.

    Raises:
        DataError: no such file, or one that is damaged, or whose arrays are not examples.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    read = _read_npz if path.suffix.lower() == ".npz" else _read_safetensors
    images, labels = read(path, split)
    return from_arrays(images, labels, None, str(path))


def _keys(present: list[str], path: Path, split: str) -> tuple[str, str]:
    wanted = (f"x_{split}", f"y_{split}")
    if set(wanted) <= set(present):
        return wanted
    if {"x", "y"} <= set(present):
        if split == "test":
            return "x", "y"
        raise DataError(
            f"{path}: holds x and y, which is the split test, not {split}",
            f"Save {wanted[0]} and {wanted[1]} beside them, or give a file of its own.",
        )
    names = ", ".join(sorted(present)) or "nothing"
    raise DataError(
        f"{path}: has no arrays x and y (it holds {names})",
        f"Save the images as x and the labels as y, or as {wanted[0]} and {wanted[1]}.",
    )


def _read_npz(path: Path, split: str) -> tuple[NDArray[Any], NDArray[Any]]:
    try:
        arrays = np.load(path, allow_pickle=False)
        if isinstance(arrays, np.ndarray):
            raise DataError(f"{path}: a single array, not an npz file", _SAVE)
        with arrays:
            x, y = _keys(arrays.files, path, split)
            return arrays[x], arrays[y]
    except _DAMAGED as error:
        raise DataError(f"{path}: not a readable npz file ({_line(error)})", _SAVE) from error


def _read_safetensors(path: Path, split: str) -> tuple[NDArray[Any], NDArray[Any]]:
    try:
        with safe_open(path, framework="pt") as tensors:
            x, y = (tensors.get_tensor(key) for key in _keys(list(tensors.keys()), path, split))
    except (SafetensorError, OSError, ValueError) as error:
        raise DataError(
            f"{path}: not a readable safetensors file ({_line(error)})",
            "Save it with safetensors.torch.save_file({'x': images, 'y': labels}, path).",
        ) from error
    return _array(x), _array(y)


def _array(tensor: Tensor) -> NDArray[Any]:
    # numpy has no bfloat16; every half precision number is a float32 as well.
    widened = tensor.float() if tensor.dtype is torch.bfloat16 else tensor
    array: NDArray[Any] = widened.numpy()
    return array


def _line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
