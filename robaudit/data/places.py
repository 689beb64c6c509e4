"""Where torchvision's sets usually lie."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

MARKS = {
    "mnist": ("MNIST/raw",),
    "fashion-mnist": ("FashionMNIST/raw",),
    "cifar10": ("cifar-10-batches-py",),
    "cifar100": ("cifar-100-python",),
    "svhn": ("test_32x32.mat", "train_32x32.mat"),
}
"""What torchvision puts into its root, by set."""


def own_folder() -> Path:
    """Where sets are downloaded to where no folder is named."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "robaudit" / "data"


def usual_places() -> Iterator[Path]:
    """Roots where a set may be, the nearest first."""
    named = os.environ.get("ROBAUDIT_DATA_DIR")
    if named:
        yield Path(named)
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    torch = Path(os.environ.get("TORCH_HOME") or Path(cache) / "torch")
    yield from (Path("data"), Path.home() / "data", own_folder())
    yield from (torch / "datasets", torch / "datasets" / "vision")


def root_of(name: str, data_dir: Path | None = None) -> Path | None:
    """The root that has a set of torchvision's: ``data_dir``, else the first usual place.

    In each place the set may be in a folder of its own name, too.
    """
    for place in (data_dir,) if data_dir is not None else usual_places():
        for root in (place, place / name, place / name.upper()):
            if any((root / mark).exists() for mark in MARKS.get(name, ())):
                return root
    return None
