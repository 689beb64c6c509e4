"""Load the examples of a data set by name."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from robaudit.data.arrayfile import SUFFIXES, arrayfile
from robaudit.data.corruptions import mildest
from robaudit.data.digits import digits
from robaudit.data.image_folder import image_folder
from robaudit.data.keeping import content_hash, kept
from robaudit.data.plugins import plugin_set, registered
from robaudit.data.source import Source
from robaudit.data.torchvision_sets import torchvision_set
from robaudit.datasets import DATA_SETS, is_corrupted
from robaudit.engine import seed_for
from robaudit.errors import DataError, UsageError, did_you_mean
from robaudit.types import Examples, Norm, Progress, ThreatModel

_FOLDER = "imagefolder:"
_SPLITS = ("test", "train")
# A random draw ranks every example; the largest sets of labelled images have 1e7.
_MOST_RANKED = 1 << 26
_DECIDING = 1024


def default_threat(name: str, norm: Norm = "linf") -> ThreatModel | None:
    """The threat model that is usual for this data set, or ``None``.

    Args:
        name: of the data set, as for :func:`load_examples`.
        norm: ``linf``, ``l2`` or ``l1``.

    >>> default_threat("mnist")
    ThreatModel(norm='linf', eps=0.3)
    """
    eps = getattr(DATA_SETS.get(name), norm, None)
    return None if eps is None else ThreatModel(norm, eps)


def load_examples(
    name: str,
    *,
    split: str = "test",
    n: int | None = None,
    at_most: int | None = None,
    sample_seed: int | None = None,
    data_dir: str | Path | None = None,
    download: bool = False,
    progress: Progress | None = None,
) -> Examples:
    """Load examples of a data set.

    Args:
        name: ``digits`` (bundled); ``mnist``, ``fashion-mnist``, ``cifar10``, ``cifar100`` or
            ``svhn`` (torchvision, in ``data_dir``); a ``.npz`` or ``.safetensors`` file with
            arrays ``x`` and ``y``, ``groups`` where one image appears several times, and in an npz
            file ``class_names``;
            ``imagefolder:DIR``, one sub-folder per class; the name of an installed package's
            entry point of the group ``robaudit.datasets``; or corrupted images
            (:func:`robaudit.data.open_corrupted`), one version of each, slightly corrupted.
        split: ``test`` or ``train``.
        n: number of examples; all if not given. The first n, unless ``sample_seed`` is given.
        at_most: used instead of ``n``: that many, or all where there are fewer.
        sample_seed: draw the n at random without replacement. The draw depends only on the seed and
            the size of the set, and a smaller draw is part of a larger one.
        data_dir: folder of torchvision's sets; also passed to a registered set.
        download: download a torchvision set that is missing.
        progress: called with the number of image files read and of all.

    Returns:
        Images float32 ``(n, c, h, w)`` in ``[0, 1]``, labels int64 ``(n,)``, in the order of the
        data set; ``index`` their positions in the split; ``sha256`` over dtype, shape and bytes of
        both. Many images stay bytes or files: ``x`` is then a
        :class:`robaudit.engine.images.StoredImages`, a tensor that reads rows when it is indexed.

    Raises:
        UsageError: an unknown name or split, or ``n`` below 1.
        DataError: the data is missing, unreadable, out of range, or has fewer than ``n`` examples.

    >>> load_examples("digits", n=3).x.shape
    torch.Size([3, 1, 8, 8])
    """
    if split not in _SPLITS:
        raise UsageError(f"unknown split {split!r}", f"Known splits: {', '.join(_SPLITS)}.")
    if n is not None and n < 1:
        raise UsageError(f"n must be at least 1, not {n}")
    source = _open(name, split, None if data_dir is None else Path(data_dir), download)
    if n is None and at_most is not None:
        n = min(at_most, source.count)
    positions = _choose(source.count, n, sample_seed, name, split)
    return _examples(source, positions, name, split, progress)


def _examples(
    source: Source, positions: list[int], name: str, split: str, progress: Progress | None = None
) -> Examples:
    y = source.labels(positions)
    x = kept(source, positions, progress)
    index = torch.tensor(positions, dtype=torch.int64)
    sha256 = content_hash(x, y, progress)
    groups = None if source.groups is None else source.groups(positions)
    names = source.class_names
    if names and int(y.max()) >= len(names):
        raise DataError(
            f"{name}: class_names names {len(names)} classes, but there is a label {int(y.max())}",
            "Name every class, in the order of the labels from 0.",
        )
    return Examples(x, y, index, name, split, sha256, source.classes, source.count, groups, names)


def deciding_examples(
    name: str,
    *,
    split: str = "test",
    data_dir: str | Path | None = None,
    download: bool = False,
    audited: Examples | None = None,
) -> Examples:
    """The examples that identify a checkpoint: the same for a split, whatever is audited.

    They are the first 1024, or, where those are sorted by class as in folders, 1024 spaced evenly
    over the split.

    Args:
        audited: loaded examples of the same split, which are used if they include these.

    >>> len(deciding_examples("digits"))
    500
    """
    if audited is not None and len(audited) >= _DECIDING:
        few = audited.taken(slice(_DECIDING))
        if torch.equal(few.index, torch.arange(_DECIDING)) and not _sorted(few.y):
            return few
    source = _open(name, split, None if data_dir is None else Path(data_dir), download)
    positions = list(range(min(_DECIDING, source.count)))
    if source.count > len(positions) and _sorted(source.labels(positions)):
        positions = [k * source.count // _DECIDING for k in range(_DECIDING)]
    return _examples(source, positions, name, split)


def _sorted(y: Tensor) -> bool:
    return bool((y[1:] >= y[:-1]).all())


def _open(name: str, split: str, data_dir: Path | None, download: bool) -> Source:
    if name == "digits":
        return digits(split)
    if name in DATA_SETS and DATA_SETS[name].torchvision:
        return torchvision_set(name, split, data_dir, download)
    if is_corrupted(name):
        return mildest(name, split, data_dir)
    if name.startswith(_FOLDER):
        return image_folder(Path(name.removeprefix(_FOLDER)).expanduser(), split)
    if name.lower().endswith(SUFFIXES):
        return arrayfile(Path(name).expanduser(), split)
    if Path(name).expanduser().is_dir():
        raise UsageError(f"{name} is a folder", f"Write {_FOLDER}{name} to read images from it.")
    plugins = registered()
    if name in plugins:
        return plugin_set(name, split, data_dir)
    known = ["digits", *(n for n, one in DATA_SETS.items() if one.torchvision), *plugins]
    raise UsageError(
        f"unknown data set {name!r}{did_you_mean(name, known)}",
        f"Known: {', '.join(known)}, FILE.npz, FILE.safetensors, {_FOLDER}DIR.",
    )


def _choose(count: int, n: int | None, sample_seed: int | None, name: str, split: str) -> list[int]:
    n = count if n is None else n
    if n > count:
        raise DataError(
            f"{name}: the {split} split has {count} examples, fewer than {n}",
            f"Ask for at most {count}, or leave n out for all of them.",
        )
    if sample_seed is None:
        return list(range(n))
    if count > _MOST_RANKED:
        raise DataError(
            f"{name}: the {split} split claims {count} examples, too many to draw from",
            "Leave --sample out for the first n.",
        )
    # Ranked by hash, because libraries do not guarantee the same random draws in later releases.
    ranked = sorted(range(count), key=lambda i: seed_for(sample_seed, "sample", i))
    return sorted(ranked[:n])
