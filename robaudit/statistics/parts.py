"""Accuracies of the parts of a sample, such as its classes, with simultaneous intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from robaudit.errors import NotMeasuredError, UsageError
from robaudit.schema import Interval
from robaudit.statistics.clusters import Values, clustered_accuracy
from robaudit.statistics.intervals import clopper_pearson


@dataclass(frozen=True)
class Part:
    """One part of a sample.

    Attributes:
        label: which part.
        n: its examples, at least one.
        count: those that are right.
        interval: of their share; those of all parts hold together at its level.
    """

    label: int
    n: int
    count: int
    interval: Interval

    @property
    def share(self) -> float:
        """``count / n``."""
        return self.count / self.n


def parts_of(
    right: Values, labels: Values, level: float = 0.95, groups: Values | None = None
) -> list[Part]:
    """The share of right examples in each part, with simultaneous intervals.

    Each of ``k`` parts has Clopper and Pearson's interval at level ``1 - (1 - level) / k``, so that
    all of them hold together with probability at least ``level`` (Bonferroni), whatever the shares.

    Args:
        right: ``(n,)`` bool.
        labels: ``(n,)`` integers, the part of each example.
        level: that all intervals hold at, together.
        groups: ``(n,)`` integers, equal for examples of one image; the intervals are then
            those of :func:`robaudit.statistics.clustered_accuracy`.

    Returns:
        The parts that have examples, by ascending label.

    Raises:
        UsageError: the numbers of values differ, or a level outside (0, 1).

    >>> [(part.label, part.count, part.n) for part in parts_of([True, False, True], [0, 1, 1])]
    [(0, 1, 1), (1, 1, 2)]
    """
    ok, of = np.asarray(right, dtype=bool), np.asarray(labels)
    if ok.shape != of.shape or ok.ndim != 1:
        raise UsageError(f"{ok.shape} outcomes and {of.shape} labels do not belong together")
    if not 0 < level < 1:
        raise UsageError(f"a level is between 0 and 1, not {level:g}")
    present = np.unique(of)
    own = 1 - (1 - level) / max(1, len(present))
    grouped = None if groups is None else np.asarray(groups)
    found = []
    for label in present.tolist():
        mine = of == label
        n, count = int(mine.sum()), int(ok[mine].sum())
        if grouped is None:
            interval = clopper_pearson(count, n, own)
        else:
            interval = clustered_accuracy(ok[mine], grouped[mine], own)
        method = f"{interval.method}, simultaneous over {len(present)}"
        interval = interval.model_copy(update={"level": level, "method": method})
        found.append(Part(int(label), n, count, interval))
    return found


def least(parts: Sequence[Part]) -> tuple[Part, Interval]:
    """The part of the smallest share, and an interval of the smallest *true* share.

    The interval goes from the smallest lower to the smallest upper end of the parts' intervals. It
    holds whenever they all do: the smallest true share is not below the smallest lower end, and not
    above any upper end. The smallest observed share estimates it with a bias downwards,
    ``E min_c p_c <= min_c E p_c``, which is the larger the more parts and the fewer examples there
    are. The interval accounts for that; the value does not.

    Args:
        parts: the parts, with simultaneous intervals.

    Returns:
        Of several parts with the smallest share the first; and the interval.

    Raises:
        NotMeasuredError: there is no part.

    >>> part, interval = least(parts_of([True] * 40 + [False] * 40, [0, 1] * 40))
    >>> part.label, part.share, round(interval.low, 3), round(interval.high, 3)
    (0, 0.5, 0.318, 0.682)
    """
    if not parts:
        raise NotMeasuredError("there is no example")
    smallest = min(parts, key=lambda part: part.share)
    low = min(part.interval.low for part in parts)
    high = min(part.interval.high for part in parts)
    return smallest, smallest.interval.model_copy(update={"low": low, "high": high})
