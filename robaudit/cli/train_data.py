"""The examples of a training run."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from robaudit.cli.messages import say
from robaudit.cli.options import Settings
from robaudit.errors import DataError, UsageError

if TYPE_CHECKING:
    from torch import Tensor

    from robaudit.types import Examples


def training_examples(settings: Settings, seed: int) -> Examples:
    """The training split; of a file that has no splits, all of it."""
    return _of_training(
        settings.data,
        n=settings.n,
        data_dir=settings.data_dir,
        sample_seed=seed if settings.sample else None,
        download=settings.download,
    )


def extra_examples(path: str, own: Examples) -> Examples:
    """The examples of a recipe's ``extra_data``.

    Raises:
        UsageError: it is no such file.
        DataError: they are not of the shape and classes of the training set.
    """
    from robaudit.data.arrayfile import SUFFIXES

    if not path.lower().endswith(SUFFIXES):
        raise UsageError(
            f"extra_data = {path!r} is not a file of arrays", f"Name one: {' or '.join(SUFFIXES)}."
        )
    found = _of_training(path)
    shape, wanted = found.x.shape[1:], own.x.shape[1:]
    if shape != wanted:
        raise DataError(
            f"{path}: its images are {'x'.join(map(str, shape))}, those of {own.name} are "
            f"{'x'.join(map(str, wanted))}"
        )
    classes, highest = own.classes or int(own.y.max()) + 1, int(found.y.max())
    if highest >= classes:
        raise DataError(f"{path}: label {highest}, and {own.name} has {classes} classes")
    return found


def _of_training(name: str, **how: Any) -> Examples:
    from robaudit.data import load_examples
    from robaudit.data.arrayfile import SUFFIXES

    try:
        return load_examples(name, split="train", **how)
    except DataError:
        if not name.lower().endswith(SUFFIXES):
            raise
        return load_examples(name, split="test", **how)


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
