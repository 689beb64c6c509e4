"""Quantiles of a sample and their intervals, whatever the distribution."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robaudit.errors import NotMeasuredError, UsageError
from robaudit.schema import Interval


def quantile_interval(
    sample: NDArray[Any], probability: float, level: float = 0.95
) -> tuple[float | None, Interval | None]:
    """A quantile and an interval between two order statistics ``x_(l)`` and ``x_(u)``.

    The quantile is that of ``numpy.quantile``, linear between order statistics. With
    ``N ~ Bin(n, probability)``, ``l`` is the largest rank with ``P(N < l) <= (1 - level) / 2`` and
    ``u`` the smallest with ``P(N >= u) <= (1 - level) / 2``, so that the interval covers the true
    quantile with at least probability ``level`` for any continuous distribution.

    Args:
        sample: values; some may be infinite.
        probability: of the quantile, in (0, 1).
        level: the confidence level, in (0, 1).

    Returns:
        The quantile and its interval; ``None`` for an infinite quantile, and for an interval that
        has an infinite end or needs more values.

    Raises:
        NotMeasuredError: no values, or one that is not a number.
        UsageError: a probability outside (0, 1).

    Source: David & Nagaraja, "Order statistics", 2003, sec. 7.1.

    >>> quantile_interval(np.arange(9.0), 0.5)
    (4.0, Interval(low=1.0, high=7.0, level=0.95, method='order-statistics'))
    """
    if not 0 < probability < 1:
        raise UsageError(f"a quantile's probability lies between 0 and 1: {probability:g}")
    values = np.sort(np.asarray(sample, dtype=np.float64).ravel())
    n = len(values)
    if n == 0 or np.isnan(values).any():
        raise NotMeasuredError("a quantile of no values, or of values that are no numbers")
    place = probability * (n - 1)
    below, above = values[math.floor(place)], values[math.ceil(place)]
    if not np.isfinite([below, above]).all():
        return None, None
    quantile = float(below + (place - math.floor(place)) * (above - below))
    from scipy.stats import binom

    tail = (1 - level) / 2
    lower = int(binom.ppf(tail, n, probability))
    if binom.cdf(lower, n, probability) <= tail:
        lower += 1
    upper = int(binom.isf(tail, n, probability)) + 1
    if lower < 1 or upper > n:
        return quantile, None
    low, high = values[lower - 1], values[upper - 1]
    if not np.isfinite([low, high]).all():
        return quantile, None
    ends = {"low": float(low), "high": float(high)}
    return quantile, Interval(**ends, level=level, method="order-statistics")


def median_interval(
    sample: NDArray[Any], level: float = 0.95
) -> tuple[float | None, Interval | None]:
    """:func:`quantile_interval` of the median.

    Args:
        sample: ``(n,)`` independent values.
        level: of the interval.

    Returns:
        The median, and its interval between order statistics.

    >>> median_interval(np.arange(9.0))
    (4.0, Interval(low=1.0, high=7.0, level=0.95, method='order-statistics'))
    """
    return quantile_interval(sample, 0.5, level)
