"""Confidence intervals of proportions, of their differences, and of normal estimates."""

from __future__ import annotations

import math
import re
from statistics import NormalDist

from robaudit.errors import NotMeasuredError, UsageError
from robaudit.schema import Interval


def clopper_pearson(successes: float, n: float, level: float = 0.95) -> Interval:
    """The exact interval of a proportion, after Clopper and Pearson (Biometrika 26, 1934).

    With ``a = (1 - level) / 2``, the ends are the proportions at which a count as high (as low)
    as the observed one has probability ``a``: the ``a`` quantile of ``Beta(k, n - k + 1)`` and
    the ``1 - a`` quantile of ``Beta(k + 1, n - k)``; 0 at no success, 1 at no failure. It covers
    the true proportion with at least probability ``level``, whatever that proportion is.

    Args:
        successes: the count ``k``; not an integer where ``n`` is an effective sample size.
        n: the number of independent trials.
        level: the confidence level, in (0, 1).

    Returns:
        The interval; its ``method`` is ``clopper-pearson``.

    Raises:
        UsageError: no trial, a count outside ``[0, n]``, or a level outside (0, 1).

    >>> interval = clopper_pearson(0, 100)
    >>> interval.low, round(interval.high, 4)
    (0.0, 0.0362)
    """
    _check_count(successes, n)
    tail = _tail(level)
    from scipy.special import betainccinv, betaincinv

    low = 0.0 if successes == 0 else float(betaincinv(successes, n - successes + 1, tail))
    high = 1.0 if successes == n else float(betainccinv(successes + 1, n - successes, tail))
    return Interval(low=low, high=high, level=level, method="clopper-pearson")


def wilson(successes: float, n: float, level: float = 0.95) -> Interval:
    """The score interval of a proportion, after Wilson (JASA 22, 1927).

    The proportions ``q`` with ``|p - q| <= z sqrt(q (1 - q) / n)``, where ``p = k / n`` and ``z``
    is the normal quantile of the level. Shorter than :func:`clopper_pearson`; its coverage is about
    ``level`` on average over proportions, and lower for some of them.

    Args:
        successes: the count ``k``.
        n: the number of independent trials.
        level: the confidence level, in (0, 1).

    Returns:
        The interval; its ``method`` is ``wilson``.

    Raises:
        UsageError: no trial, a count outside ``[0, n]``, or a level outside (0, 1).

    >>> interval = wilson(50, 100)
    >>> round(interval.low, 4), round(interval.high, 4)
    (0.4038, 0.5962)
    """
    low, high = _wilson_ends(successes, n, level)
    return Interval(low=low, high=high, level=level, method="wilson")


def newcombe(
    successes_a: float, n_a: float, successes_b: float, n_b: float, level: float = 0.95
) -> Interval:
    """An interval of ``p_a - p_b``, two independent proportions: Newcombe's hybrid score interval.

    Method 10 of Newcombe (Statistics in Medicine 17, 1998, p. 873). With the Wilson ends ``l, u``
    of each sample: ``d - sqrt((p_a - l_a)^2 + (u_b - p_b)^2)`` to
    ``d + sqrt((u_a - p_a)^2 + (p_b - l_b)^2)``, ``d = p_a - p_b``. For accuracies on the *same*
    examples it is too wide, since those are paired: use :func:`robaudit.statistics.paired`.

    Args:
        successes_a: the first count.
        n_a: the first number of trials.
        successes_b: the second count.
        n_b: the second number of trials.
        level: the confidence level, in (0, 1).

    Returns:
        The interval; its ``method`` is ``newcombe``.

    Raises:
        UsageError: no trial, a count outside ``[0, n]``, or a level outside (0, 1).

    >>> interval = newcombe(56, 70, 48, 80)
    >>> round(interval.low, 4), round(interval.high, 4)
    (0.0524, 0.3339)
    """
    low_a, high_a = _wilson_ends(successes_a, n_a, level)
    low_b, high_b = _wilson_ends(successes_b, n_b, level)
    p_a, p_b = successes_a / n_a, successes_b / n_b
    below = math.hypot(p_a - low_a, high_b - p_b)
    above = math.hypot(high_a - p_a, p_b - low_b)
    difference = p_a - p_b
    return Interval(
        low=max(-1.0, difference - below),
        high=min(1.0, difference + above),
        level=level,
        method="newcombe",
    )


def normal_interval(
    value: float, standard_error: float, level: float = 0.95, method: str = "normal"
) -> Interval:
    """``value -+ z standard_error``, ``z`` the normal quantile of the level.

    For estimates that are approximately normal, such as means of many examples.

    Args:
        value: the estimate, in any unit.
        standard_error: its standard error, in the same unit.
        level: the confidence level, in (0, 1).
        method: the interval's ``method``: how the standard error was computed, e.g.
            ``"normal-jackknife"``.

    Returns:
        The interval, in the estimate's unit.

    Raises:
        NotMeasuredError: the value or its standard error is not finite.
        UsageError: a negative standard error, or a level outside (0, 1).

    >>> interval = normal_interval(1.0, 0.1)
    >>> round(interval.low, 3), round(interval.high, 3)
    (0.804, 1.196)
    """
    if not (math.isfinite(value) and math.isfinite(standard_error)):
        raise NotMeasuredError(f"no interval: value {value}, standard error {standard_error}")
    if standard_error < 0:
        raise UsageError(f"a standard error is not negative: {standard_error:g}")
    half = _quantile(level) * standard_error
    return Interval(low=value - half, high=value + half, level=level, method=method)


def t_interval(value: float, standard_error: float, degrees: int, level: float = 0.95) -> Interval:
    """``value -+ t standard_error``, ``t`` the quantile of Student's t with ``degrees`` degrees.

    For the mean of few normal draws, whose standard error is itself an estimate.

    Args:
        value: the estimate, in any unit.
        standard_error: its standard error, in the same unit.
        degrees: degrees of freedom, the number of draws minus one.
        level: the confidence level, in (0, 1).

    Returns:
        The interval; its ``method`` holds the degrees, which :func:`degrees_of` reads.

    Raises:
        NotMeasuredError: the value or its standard error is not finite, or no degree is left.
        UsageError: a negative standard error, or a level outside (0, 1).

    Source: Student, "The probable error of a mean", Biometrika 6, 1908.

    >>> interval = t_interval(1.0, 0.1, 4)
    >>> round(interval.low, 3), round(interval.high, 3), interval.method
    (0.722, 1.278, 't, 4 degrees')
    """
    if degrees < 1:
        raise NotMeasuredError(f"no interval with {degrees} degrees of freedom")
    checked = normal_interval(value, standard_error, level)
    from scipy.special import stdtrit

    half = -float(stdtrit(degrees, _tail(level))) * standard_error
    plural = "" if degrees == 1 else "s"
    return checked.model_copy(
        update={
            "low": value - half,
            "high": value + half,
            "method": f"t, {degrees} degree{plural}",
        }
    )


def degrees_of(interval: Interval | None) -> int | None:
    """The degrees of freedom of a :func:`t_interval`.

    Args:
        interval: any interval, or ``None``.

    Returns:
        The degrees, or ``None`` for an interval of another method.

    >>> degrees_of(t_interval(1.0, 0.1, 4)), degrees_of(normal_interval(1.0, 0.1))
    (4, None)
    """
    found = None if interval is None else re.fullmatch(r"t, (\d+) degrees?", interval.method)
    return None if found is None else int(found[1])


def from_standard_error(
    value: float, standard_error: float, degrees: int | None, level: float = 0.95
) -> Interval:
    """:func:`t_interval` where degrees of freedom are given, else :func:`normal_interval`.

    Args:
        value: the estimate, in any unit.
        standard_error: its standard error, in the same unit.
        degrees: degrees of freedom, or ``None``.
        level: the confidence level, in (0, 1).

    Returns:
        The interval, in the estimate's unit.

    >>> from_standard_error(1.0, 0.1, None).method, from_standard_error(1.0, 0.1, 4).method
    ('normal', 't, 4 degrees')
    """
    if degrees is None:
        return normal_interval(value, standard_error, level)
    return t_interval(value, standard_error, degrees, level)


def standard_error_of_proportion(successes: int, n: int) -> float:
    """``sqrt(p (1 - p) / n)``, ``p = k / n``.

    It is 0 when all or none succeed; use an interval there.

    Args:
        successes: the count ``k``.
        n: the number of independent trials.

    Returns:
        The standard error, as a fraction.

    Raises:
        UsageError: no trial, or a count outside ``[0, n]``.

    >>> standard_error_of_proportion(50, 100)
    0.05
    """
    _check_count(successes, n)
    p = successes / n
    return math.sqrt(p * (1 - p) / n)


def _wilson_ends(successes: float, n: float, level: float) -> tuple[float, float]:
    _check_count(successes, n)
    z = _quantile(level)
    p = successes / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + (z / (2 * n)) ** 2)
    # At no success and at no failure the end is 0 and 1 exactly; rounding would miss them.
    low = 0.0 if successes == 0 else max(0.0, centre - half)
    high = 1.0 if successes == n else min(1.0, centre + half)
    return low, high


def _check_count(successes: float, n: float) -> None:
    if n < 1:
        raise UsageError(f"a proportion needs at least one example, not {n}")
    if not 0 <= successes <= n:
        raise UsageError(f"{successes} successes of {n} examples cannot be")


def _tail(level: float) -> float:
    if not 0 < level < 1:
        raise UsageError(
            f"a confidence level lies between 0 and 1: {level:g}", "Write 0.95 for 95 %."
        )
    return (1 - level) / 2


def _quantile(level: float) -> float:
    # From the lower tail: 1 - tail would round to 1 for levels near 1.
    return -NormalDist().inv_cdf(_tail(level))
