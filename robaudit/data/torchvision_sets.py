"""MNIST, Fashion-MNIST, CIFAR-10, CIFAR-100 and SVHN, as torchvision stores them."""

from __future__ import annotations

import contextlib
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from robaudit.data.places import own_folder, root_of
from robaudit.data.source import Source, from_arrays
from robaudit.datasets import DATA_SETS
from robaudit.errors import DataError, UsageError, first_line


def torchvision_set(name: str, split: str, data_dir: Path | None, download: bool) -> Source:
    """One split of the set, from ``data_dir`` (torchvision's ``root``) or a usual folder.

    The stored uint8 arrays are used as they are: dividing them by 255 gives the same numbers as
    torchvision's ``ToTensor``, without decoding image by image.

    Raises:
        UsageError: no ``data_dir``, the set is in no usual folder, and ``download`` is false.
        DataError: the set is missing, damaged or could not be downloaded.
    """
    from torchvision import datasets

    data_dir = root_of(name, data_dir) or data_dir or (own_folder() if download else None)
    if data_dir is None:
        raise UsageError(
            f"the files of {name} are in no usual place (./data, ~/data, ROBAUDIT_DATA_DIR)",
            "Give the folder as --data-dir, or download them with --download.",
        )
    known = DATA_SETS[name]
    which = {"split": split} if name == "svhn" else {"train": split == "train"}
    try:
        # torchvision prints while it downloads; stdout belongs to the result.
        with contextlib.redirect_stdout(sys.stderr):
            stored = getattr(datasets, known.torchvision)(str(data_dir), download=download, **which)
    except (RuntimeError, OSError, ValueError, EOFError) as error:
        reason = first_line(error)
        if download:
            raise DataError(f"{name} could not be fetched into {data_dir}: {reason}") from error
        raise DataError(
            f"{name} is not in {data_dir} ({reason})",
            "Name its folder as --data-dir, or fetch it with --download.",
        ) from error
    labels = stored.labels if name == "svhn" else stored.targets
    found = from_arrays(np.asarray(stored.data), np.asarray(labels), known.classes, name)
    # MNIST's names are "0 - zero" and so on, and SVHN has none: there the label says it.
    named = () if name in ("mnist", "svhn") else tuple(map(str, getattr(stored, "classes", ())))
    return replace(found, class_names=named)
