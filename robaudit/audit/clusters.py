"""Error bars of measurements on data where one image appears several times."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from robaudit.audit.context import Context
from robaudit.audit.numbers import LEVEL
from robaudit.schema import Interval, Measurement
from robaudit.statistics import (
    clustered_accuracy,
    clustered_difference,
    clustered_mean,
    from_standard_error,
)

_GAPS = {"gap.error": "accuracy.pgd", "gap.loss": "loss.robust"}


def clustered(context: Context, measurements: Sequence[Measurement]) -> list[Measurement]:
    """The measurements with error bars over images, where outcomes and their groups are known.

    Values do not change. Measurements that are the mean of an outcome of the same name, or a gap
    between two such means, get new error bars; the others are returned as they are.
    """
    return [_clustered(context, m) if m.status == "ok" else m for m in measurements]


def clusters_note(context: Context) -> list[str]:
    """A warning where images appear several times: which error bars take that into account."""
    notes = []
    for split, examples in context.splits.items():
        groups = context.groups(split, len(examples))
        if groups is not None:
            notes.append(
                f"the {len(examples)} {split} examples are {len(torch.unique(groups))} images: "
                "error bars of accuracies, losses and gaps count that, all others take examples as "
                "independent and are too narrow"
            )
    return notes


def _clustered(context: Context, found: Measurement) -> Measurement:
    if found.name in _GAPS:
        return _gap(context, found)
    outcome, groups = _outcome(context, found.split, found.name, found.n)
    if groups is None or outcome is None or found.value is None:
        return found
    if abs(float(outcome.mean(dtype=np.float64)) - found.value) > 1e-6 * max(1, abs(found.value)):
        return found  # is not the mean of these outcomes
    error = clustered_mean(outcome, groups).standard_error
    if outcome.dtype == bool:
        return _with(found, clustered_accuracy(outcome, groups, LEVEL), error)
    interval = None
    if error is not None:
        degrees = len(np.unique(groups)) - 1
        interval = from_standard_error(found.value, error, degrees, LEVEL)
    return _with(found, interval, error)


def _gap(context: Context, found: Measurement) -> Measurement:
    sides = [
        _outcome(context, split, _GAPS[found.name], len(examples))
        for split, examples in context.splits.items()
    ]
    if len(sides) != 2 or all(groups is None for _, groups in sides) or found.value is None:
        return found
    known = [
        (outcome, np.arange(len(outcome)) if groups is None else groups)
        for outcome, groups in sides
        if outcome is not None
    ]
    if len(known) != 2:
        return found
    (test, test_groups), (train, train_groups) = known
    errors = [clustered_mean(*side).standard_error for side in known]
    whole = [error for error in errors if error is not None]
    error = math.hypot(*whole) if len(whole) == 2 else None
    if found.name == "gap.error":
        sides_of = ~test, test_groups, ~train, train_groups
        return _with(found, clustered_difference(*sides_of, level=LEVEL), error)
    if error is None:
        return _with(found, None, None)
    degrees = min(len(np.unique(test_groups)), len(np.unique(train_groups))) - 1
    return _with(found, from_standard_error(found.value, error, degrees, LEVEL), error)


def _outcome(
    context: Context, split: str, name: str, n: int | None
) -> tuple[NDArray[Any] | None, NDArray[Any] | None]:
    """The outcomes of the first ``n`` examples, and their groups where there are any."""
    values = context.outcomes.get(f"{split}.{name}")
    if values is None or len(values) != n or split not in context.splits:
        return None, None
    groups = context.groups(split, n)
    return values.numpy(), None if groups is None else groups.numpy()


def _with(found: Measurement, interval: Interval | None, error: float | None) -> Measurement:
    return found.model_copy(update={"interval": interval, "standard_error": error})
