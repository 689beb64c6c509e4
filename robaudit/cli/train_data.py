"""The examples of a training run."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from robaudit.cli.messages import say
from robaudit.cli.options import Settings
from robaudit.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor

    from robaudit.types import Examples


def training_examples(settings: Settings, seed: int) -> Examples:
    """The training split; of a file that has no splits, all of it."""
    from robaudit.data import load_examples
    from robaudit.data.arrayfile import SUFFIXES

    def load(split: str) -> Examples:
        return load_examples(
            settings.data,
            split=split,
            n=settings.n,
            data_dir=settings.data_dir,
            sample_seed=seed if settings.sample else None,
            download=settings.download,
        )

    try:
        return load("train")
    except DataError:
        if not settings.data.lower().endswith(SUFFIXES):
            raise
        return load("test")


def tracked_splits(train: Examples, rows: Tensor, settings: Settings, n: int) -> list[Examples]:
    """The first ``n`` examples of the test split, and of the ``rows`` that are trained on."""
    from robaudit.data import load_examples

    where = {"data_dir": settings.data_dir, "download": settings.download}
    parts = []
    try:
        if train.split == "test":
            raise DataError(f"{settings.data} has no test split of its own")
        parts.append(load_examples(settings.data, split="test", at_most=n, **where))  # type: ignore[arg-type]
    except DataError as error:
        if not settings.quiet:
            say(f"tracking the training split only: {error.message}")
    rows = rows[:n]
    first = {"x": train.x[rows], "y": train.y[rows], "index": train.index[rows], "split": "train"}
    parts.append(replace(train, **first))  # type: ignore[arg-type]
    return parts
