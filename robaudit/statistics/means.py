"""The mean of a sample with its standard error, in float64."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robaudit.errors import NotMeasuredError


@dataclass(frozen=True)
class Mean:
    """A sample's mean with its standard error.

    Attributes:
        value: the mean, in the sample's unit.
        standard_error: of the mean; ``None`` for a sample of one.
        n: the number of values.
    """

    value: float
    standard_error: float | None
    n: int


def mean(sample: Sequence[float] | NDArray[Any]) -> Mean:
    """``m = sum x_i / n`` and ``sqrt(sum (x_i - m)^2 / (n (n - 1)))``, in the sample's unit.

    Args:
        sample: independent values, of any shape and type; summed in float64.

    Returns:
        Mean, standard error and size.

    Raises:
        NotMeasuredError: an empty sample, or a value that is not finite.

    >>> mean([1.0, 2.0, 3.0])
    Mean(value=2.0, standard_error=0.5773502691896258, n=3)
    """
    values = np.asarray(sample, dtype=np.float64).ravel()
    n = int(values.size)
    if n == 0:
        raise NotMeasuredError("the mean of no values")
    bad = n - int(np.count_nonzero(np.isfinite(values)))
    if bad:
        raise NotMeasuredError(f"{bad} of {n} values are not finite")
    value = float(values.mean())
    error = float(values.std(ddof=1)) / n**0.5 if n > 1 else None
    return Mean(value, error, n)


def ratio_of_means(numerator: NDArray[Any], denominator: NDArray[Any]) -> Mean:
    """``r = sum a_i / sum b_i``, with ``sqrt(sum (a_i - r b_i)^2 / (n (n - 1))) / mean(b)``.

    The standard error is that of the delta method: the first-order one for many pairs.

    Args:
        numerator, denominator: ``(n,)`` the two values of each of ``n`` independent examples.

    Returns:
        The ratio, with its standard error.

    Raises:
        NotMeasuredError: no pairs, a value that is not finite, or a denominator of mean zero.

    Source: Cochran, "Sampling techniques", 1977, sec. 2.11.

    >>> ratio_of_means(np.array([1.0, 3.0]), np.array([2.0, 2.0]))
    Mean(value=1.0, standard_error=0.5, n=2)
    """
    top, below = mean(numerator), mean(denominator)
    if below.value == 0:
        raise NotMeasuredError("a ratio to values that are all zero")
    ratio = top.value / below.value
    apart = np.asarray(numerator, np.float64) - ratio * np.asarray(denominator, np.float64)
    error = mean(apart).standard_error
    return Mean(ratio, None if error is None else error / abs(below.value), top.n)
