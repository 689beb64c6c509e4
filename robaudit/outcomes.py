"""Per-example outcomes, stored next to a report."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robaudit.errors import DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray

# A file may unpack to the larger of so many bytes and so many times its size.
_HARMLESS, _PLAUSIBLE = 1 << 28, 20
# Raised by numpy and zipfile for files that are truncated, altered or of another format.
UNREADABLE = (
    OSError,
    ValueError,
    EOFError,
    KeyError,
    MemoryError,
    NotImplementedError,
    RuntimeError,
    zipfile.BadZipFile,
    zlib.error,
)


def read_outcomes(report: Path) -> dict[str, NDArray[Any]] | None:
    """The arrays in ``examples.npz`` next to a report, by ``split.name``; ``None`` without a file.

    Args:
        report: its folder, or its ``report.json``.

    Raises:
        DataError: it cannot be read.
    """
    file = (report if report.is_dir() else report.parent) / "examples.npz"
    if not file.exists():
        return None
    try:
        return read_arrays(file)
    except UNREADABLE as error:
        said = " ".join(str(error).split())[:200]
        raise DataError(f"{file} cannot be read as per-example outcomes: {said}") from None


def read_arrays(file: Path) -> dict[str, NDArray[Any]]:
    """The arrays of an npz file that robaudit wrote.

    Raises:
        OSError, ValueError and the others in ``UNREADABLE``: it is another file, or a damaged one,
            or its arrays are implausibly large for its size.
    """
    import numpy as np

    with zipfile.ZipFile(file) as entries:
        size = sum(entry.file_size for entry in entries.infolist())
    if size > max(_HARMLESS, _PLAUSIBLE * file.stat().st_size):
        raise ValueError(f"its arrays would take {size:,} bytes of memory")
    with np.load(file, allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}
