"""Selected rows of the arrays in an ``.npz`` file, without reading the whole file."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from robaudit.data.source import ArrayRows
from robaudit.errors import DataError, first_line
from robaudit.outcomes import UNREADABLE

_SAVE = "Save it with numpy.savez(path, x=images, y=labels); arrays of objects are not read."
# Largest compression ratio of deflate, and the largest that is plausible for photographs.
_DEFLATE, _PLAUSIBLE = 1032, 100
_HARMLESS = 1 << 28
_PIECE = 1 << 24


def npz_rows(path: Path, wanted: Callable[[Sequence[str]], tuple[str, ...]]) -> list[ArrayRows]:
    """Arrays of a file; ``wanted`` selects names among those present.

    Raises:
        DataError: the file is damaged, is not an npz file, or its arrays hold objects.
    """
    with _opened(path) as file:
        names = {entry.filename.removesuffix(".npy"): entry.filename for entry in file.infolist()}
        members = [names[name] for name in wanted(list(names))]
    return [_rows(path, member) for member in members]


def _rows(path: Path, member: str) -> ArrayRows:
    with _opened(path) as file, file.open(member) as stream:
        shape, fortran, dtype = _header(stream)
        entry, start = file.getinfo(member), stream.tell()
    whole = dtype.itemsize * math.prod(shape)
    if start + whole > entry.file_size or entry.file_size > _DEFLATE * (entry.compress_size + 64):
        raise _unreadable(path, f"{member} claims {whole} bytes and is not as long")

    def read(at: NDArray[np.int64]) -> NDArray[Any]:
        size = dtype.itemsize * math.prod(shape[1:])
        held = whole if fortran else size * len(at)
        if held > max(_HARMLESS, _PLAUSIBLE * entry.compress_size):
            raise DataError(
                f"{path}: {entry.compress_size} bytes of {member} would become {held / 2**30:.1f} "
                "GiB in memory",
                "Ask for fewer examples with --n; if the data is right, save it uncompressed, "
                "with numpy.savez.",
            )
        with _opened(path) as file, file.open(member) as stream:
            _header(stream)
            if fortran:
                flat = np.frombuffer(_exactly(stream, whole), dtype)
                return np.array(flat.reshape(shape[::-1]).T[at])
            return _picked(stream, at, size, shape, dtype)

    return ArrayRows(shape, dtype, read)


def _picked(
    stream: IO[bytes],
    at: NDArray[np.int64],
    size: int,
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
) -> NDArray[Any]:
    """The rows at ascending positions of a stream, which is read up to the last of them."""
    out = np.empty((len(at), *shape[1:]), dtype)
    stop, together = int(at[-1]) + 1, max(1, _PIECE // max(1, size))
    for start in range(0, stop, together):
        count = min(together, stop - start)
        block = np.frombuffer(_exactly(stream, count * size), dtype).reshape(count, *shape[1:])
        first, last = np.searchsorted(at, (start, start + count))
        out[first:last] = block[at[first:last] - start]
    if stop == shape[0]:
        stream.read(1)  # the zip file's checksum is verified at its end
    return out


def _header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = npy.read_magic(stream)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"npy format {version[0]}.{version[1]}")
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, fortran, dtype = read(stream)
    if dtype.hasobject:
        raise ValueError("arrays of objects")
    return shape, fortran, dtype


def _exactly(stream: IO[bytes], size: int) -> bytes:
    found = stream.read(size)
    if len(found) < size:
        raise EOFError("it ends too early")
    return found


@contextmanager
def _opened(path: Path) -> Iterator[zipfile.ZipFile]:
    try:
        with path.open("rb") as start:
            if start.read(6) == b"\x93NUMPY":
                raise DataError(f"{path}: a single array, not an npz file", _SAVE)
        with zipfile.ZipFile(path) as file:
            yield file
    except UNREADABLE as error:
        raise _unreadable(path, first_line(error)) from error


def _unreadable(path: Path, why: str) -> DataError:
    return DataError(f"{path}: not a readable npz file ({why})", _SAVE)
