"""The examples that an audit needs: those audited, and training examples for the gaps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from robaudit.data.load import load_examples
from robaudit.errors import DataError
from robaudit.types import Examples, Progress


def load_splits(
    data: str,
    split: str,
    *,
    gap: bool,
    train_data: str | None = None,
    n: int | None = None,
    at_most: int | None = None,
    sample_seed: int | None = None,
    data_dir: str | Path | None = None,
    download: bool = False,
    without: Callable[[DataError], None] = lambda _: None,
    progress: Progress | None = None,
) -> tuple[Examples, Examples | None]:
    """The audited examples and the training examples, selected in the same way.

    Args:
        data, split, n, at_most, sample_seed, data_dir, download, progress: see
            :func:`robaudit.data.load_examples`.
        gap: whether training examples are needed; none are loaded where ``split`` is ``train``.
        train_data: another data set with training examples, which are then always loaded.
        without: called with the error where ``data`` has no training examples.

    Raises:
        UsageError, DataError: the audited examples, or those of ``train_data``, cannot be loaded.

    >>> audited, train = load_splits("digits", "test", gap=True, n=3)
    >>> audited.split, train.split, len(train)
    ('test', 'train', 3)
    """
    load = partial(
        load_examples,
        n=n,
        at_most=at_most,
        sample_seed=sample_seed,
        data_dir=data_dir,
        download=download,
        progress=progress,
    )
    audited = load(data, split=split)
    if train_data is not None:
        try:
            return audited, load(train_data, split="train")
        except DataError:  # a file of training examples only has no splits
            return audited, replace(load(train_data, split="test"), split="train")
    if not gap or split == "train":
        return audited, None
    try:
        return audited, load(data, split="train")
    except DataError as error:
        without(error)
        return audited, None
