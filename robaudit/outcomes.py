"""The per-example outcomes that lie beside a report."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robaudit.errors import DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray


def read_outcomes(report: Path) -> dict[str, NDArray[Any]] | None:
    """The arrays by ``split.name`` of the ``examples.npz`` beside a report; ``None`` without one.

    Args:
        report: its folder, or its ``report.json``.

    Raises:
        DataError: it cannot be read.
    """
    import numpy as np

    file = (report if report.is_dir() else report.parent) / "examples.npz"
    if not file.exists():
        return None
    try:
        with np.load(file, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        said = " ".join(str(error).split())[:200]
        raise DataError(f"{file} cannot be read as per-example outcomes: {said}") from None
