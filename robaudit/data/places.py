"""The usual folders of torchvision's data sets."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from robaudit.datasets import DATA_SETS


def own_folder() -> Path:
    """The default folder of downloads."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "robaudit" / "data"


def usual_places() -> Iterator[Path]:
    """Roots that may contain a set, in order of preference."""
    named = os.environ.get("ROBAUDIT_DATA_DIR")
    if named:
        yield Path(named)
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    torch = Path(os.environ.get("TORCH_HOME") or Path(cache) / "torch")
    yield from (Path("data"), Path.home() / "data", own_folder())
    yield from (torch / "datasets", torch / "datasets" / "vision")


def root_of(name: str, data_dir: Path | None = None) -> Path | None:
    """The root that contains a set of torchvision's: ``data_dir``, else the first usual folder.

    The set may also be in a sub-folder named after it.
    """
    marks = DATA_SETS[name].marks if name in DATA_SETS else ()
    for place in (data_dir,) if data_dir is not None else usual_places():
        for root in (place, place / name, place / name.upper()):
            if any((root / mark).exists() for mark in marks):
                return root
    return None
