"""The median of a sample and its interval, whatever the distribution."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from robaudit.errors import NotMeasuredError
from robaudit.schema import Interval


def median_interval(
    sample: NDArray[Any], level: float = 0.95
) -> tuple[float | None, Interval | None]:
    """The median and the interval between the order statistics ``x_(k)`` and ``x_(n + 1 - k)``.

    ``k`` is the largest with ``P(Bin(n, 1/2) < k) <= (1 - level) / 2``, so that the interval covers
    the true median with at least probability ``level`` for any continuous distribution.

    Args:
        sample: values; some may be infinite.
        level: the confidence level, in (0, 1).

    Returns:
        The median and its interval; ``None`` for an infinite median, and for an interval that has
        an infinite end or needs more values.

    Raises:
        NotMeasuredError: no values, or one that is not a number.

    >>> median_interval(np.arange(9.0))
    (4.0, Interval(low=1.0, high=7.0, level=0.95, method='order-statistics'))
    """
    values = np.sort(np.asarray(sample, dtype=np.float64).ravel())
    n = len(values)
    if n == 0 or np.isnan(values).any():
        raise NotMeasuredError("the median of no values, or of values that are no numbers")
    low_middle, high_middle = values[(n - 1) // 2], values[n // 2]
    if not np.isfinite([low_middle, high_middle]).all():
        return None, None
    middle = float(low_middle + high_middle) / 2
    from scipy.stats import binom

    k = int(binom.ppf((1 - level) / 2, n, 0.5))
    if binom.cdf(k, n, 0.5) <= (1 - level) / 2:
        k += 1
    low, high = values[max(k, 1) - 1], values[n - max(k, 1)]
    if k < 1 or not np.isfinite([low, high]).all():
        return middle, None
    return middle, Interval(
        low=float(low), high=float(high), level=level, method="order-statistics"
    )
