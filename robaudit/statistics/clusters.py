"""Error bars for grouped examples, such as several of one image, which are not independent."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robaudit.errors import NotMeasuredError, UsageError
from robaudit.schema import Interval
from robaudit.statistics.intervals import clopper_pearson, newcombe
from robaudit.statistics.means import Mean
from robaudit.statistics.paired import Paired, paired_interval

Values = NDArray[Any] | Sequence[float] | Sequence[bool]
_METHOD = "{method}, clustered in {groups} groups"


def clustered_mean(sample: Values, groups: Values) -> Mean:
    """The mean of ``n`` values and its cluster-robust standard error over ``G`` groups.

    ``sqrt(G / (G - 1) sum_g (sum_{i in g} (x_i - m))^2) / n``; with one value per group it is that
    of independent values.

    Args:
        sample: ``(n,)`` values.
        groups: ``(n,)`` the group of each value, as numbers.

    Returns:
        Mean and size; the standard error is ``None`` for a single group.

    Raises:
        UsageError: the numbers of values and groups differ.
        NotMeasuredError: no values, or one that is not finite.

    Source: Liang & Zeger, "Longitudinal data analysis using generalized linear models",
    Biometrika 73, 1986.

    >>> clustered_mean([1.0, 1.0, 3.0, 3.0], [7, 7, 9, 9])
    Mean(value=2.0, standard_error=1.0, n=4)
    """
    values, sums = _sums(sample, groups)
    count, n = len(sums), len(values)
    error = math.sqrt(count / (count - 1) * float(sums @ sums)) / n if count > 1 else None
    return Mean(float(values.mean()), error, n)


def effective_size(sample: Values, groups: Values) -> float:
    """The number of independent values that would have the grouped values' standard error.

    ``n`` over the design effect ``sum_g (sum_{i in g} (x_i - m))^2 / sum_i (x_i - m)^2``, which is
    one for groups of one and ``k`` for ``k`` copies of each value.

    Args:
        sample: ``(n,)`` values.
        groups: ``(n,)`` the group of each value, as numbers.

    Returns:
        At most ``n``; the number of groups if all values are equal, which leaves the correlation
        within groups undetermined.

    Raises:
        UsageError: the numbers of values and groups differ.
        NotMeasuredError: no values, or one that is not finite.

    Source: Kish, "Survey Sampling", 1965, sec. 8.2; Korn & Graubard, "Confidence intervals for
    proportions with small expected number of positive counts estimated from survey data", Survey
    Methodology 24, 1998.

    >>> effective_size([True, True, False, False], [0, 0, 1, 1])
    2.0
    """
    values, sums = _sums(sample, groups)
    apart = values - values.mean()
    alone, together = float(apart @ apart), float(sums @ sums)
    if alone == 0:
        return float(len(sums))
    return len(values) / max(1.0, together / alone)


def clustered_accuracy(right: Values, groups: Values, level: float = 0.95) -> Interval:
    """Clopper and Pearson's interval of an accuracy with the :func:`effective_size`.

    With ``k`` copies of each example it is the interval of the distinct ones.

    Args:
        right: ``(n,)`` whether each example is classified correctly.
        groups: ``(n,)`` the group of each example, as numbers.
        level: the confidence level, in (0, 1).

    Returns:
        The interval; its ``method`` states the number of groups.

    >>> clustered_accuracy([True] * 30 + [False] * 10, [i // 2 for i in range(40)]).method
    'clopper-pearson, clustered in 20 groups'
    """
    n, share = effective_size(right, groups), float(np.mean(np.asarray(right, dtype=np.float64)))
    return _named(clopper_pearson(share * n, n, level), groups)


def clustered_difference(
    first: Values, first_groups: Values, second: Values, second_groups: Values, level: float = 0.95
) -> Interval:
    """Newcombe's interval of the first accuracy minus the second, for independent grouped samples.

    Args:
        first: whether each example of the first sample is classified correctly.
        first_groups: the group of each, as numbers.
        second: whether each example of the second sample is classified correctly.
        second_groups: the group of each, as numbers.
        level: the confidence level, in (0, 1).

    Returns:
        The interval, with the :func:`effective_size` of each sample.

    >>> a, b, groups = [True] * 8, [True, False] * 4, range(8)
    >>> clustered_difference(a, groups, b, groups).low > 0
    True
    """
    n_a, n_b = effective_size(first, first_groups), effective_size(second, second_groups)
    p_a, p_b = (float(np.mean(np.asarray(right, dtype=np.float64))) for right in (first, second))
    everyone = [*np.unique(np.asarray(first_groups)), *np.unique(np.asarray(second_groups))]
    return _named(newcombe(p_a * n_a, n_a, p_b * n_b, n_b, level), everyone)


def clustered_paired(
    first: NDArray[np.bool_], second: NDArray[np.bool_], groups: Values, level: float = 0.95
) -> Paired:
    """:func:`robaudit.statistics.paired` for grouped examples.

    The test is exact under the hypothesis that the two classifiers are exchangeable in each group.
    With ``D_g`` the number of examples of group ``g`` that only the second classifies correctly
    minus those that only the first does, both signs of every ``D_g`` are equally likely, and the
    p-value is the fraction of sign choices with ``|sum_g D_g|`` at least as large. In groups of one
    it is McNemar's test. The interval is Newcombe's with the :func:`effective_size` of the
    differences.

    Args:
        first: ``(n,)`` whether the first classifies each example correctly.
        second: ``(n,)`` whether the second does.
        groups: ``(n,)`` the group of each example, as numbers.
        level: the confidence level, in (0, 1).

    Returns:
        Difference, p-value and interval.

    Source of the test: Durkalski et al., "Analysis of clustered matched-pair data", Statistics in
    Medicine 22, 2003, made exact.

    >>> first, second = np.array([True, False] * 6), np.array([True] * 12)
    >>> found = clustered_paired(first, second, range(12))
    >>> found.difference, found.p_value
    (0.5, 0.03125)
    """
    n = len(first)
    only_first, only_second = int((first & ~second).sum()), int((~first & second).sum())
    both, neither = int((first & second).sum()), int((~first & ~second).sum())
    apart = second.astype(np.float64) - first
    worth = effective_size(apart, groups) / n
    cells = both * worth, only_first * worth, only_second * worth, neither * worth
    _, place = np.unique(np.asarray(groups), return_inverse=True)
    return Paired(
        n=n,
        only_first=only_first,
        only_second=only_second,
        difference=(only_second - only_first) / n,
        p_value=_sign_flips(np.bincount(place, apart).round().astype(np.int64)),
        interval=_named(paired_interval(*cells, level), groups),
    )


def _sums(sample: Values, groups: Values) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The values, and each group's sum of deviations from their mean."""
    values, of = np.asarray(sample, dtype=np.float64).ravel(), np.asarray(groups).ravel()
    if len(values) != len(of):
        raise UsageError(f"{len(of)} groups for {len(values)} examples")
    if not len(values) or not np.isfinite(values).all():
        raise NotMeasuredError("the mean of no values, or of values that are not finite")
    _, place = np.unique(of, return_inverse=True)
    return values, np.bincount(place, values - values.mean()).astype(np.float64)


def _sign_flips(sums: NDArray[np.int64]) -> float:
    """``P(|sum_g e_g D_g| >= |sum_g D_g|)`` for independent signs: exact, by convolution."""
    moving = np.abs(sums[sums != 0])
    reach = int(moving.sum())
    mass = np.zeros(2 * reach + 1)
    mass[reach] = 1.0
    for step in moving:
        mass = (np.roll(mass, step) + np.roll(mass, -step)) / 2
    far = np.abs(np.arange(-reach, reach + 1)) >= abs(int(sums.sum()))
    return min(1.0, float(mass[far].sum()))


def _named(found: Interval, groups: Values) -> Interval:
    count = len(np.unique(np.asarray(groups)))
    method = _METHOD.format(method=found.method, groups=count)
    return found.model_copy(update={"method": method})
