"""Two classifiers on the same examples: does their accuracy differ, and by how much?"""

from __future__ import annotations

from dataclasses import dataclass

from robaudit.errors import UsageError
from robaudit.schema import Interval
from robaudit.statistics.intervals import wilson


@dataclass(frozen=True)
class Paired:
    """Two classifiers' outcomes on the same examples.

    Attributes:
        n: number of examples.
        only_first, only_second: number of examples that only one of them classifies correctly.
        difference: accuracy of the second minus that of the first, as a fraction.
        p_value: of McNemar's exact test that both have the same accuracy.
        interval: of the difference.
    """

    n: int
    only_first: int
    only_second: int
    difference: float
    p_value: float
    interval: Interval


def paired(
    both: int, only_first: int, only_second: int, neither: int, level: float = 0.95
) -> Paired:
    """McNemar's exact test and Newcombe's interval of the difference of paired proportions.

    Under the hypothesis of equal accuracies, an example that only one classifies correctly belongs
    to either with probability one half: the p-value is twice the smaller binomial tail, at most 1.
    The interval (Newcombe's method 10) combines the Wilson ends of both proportions with the
    correlation of the outcomes.

    Args:
        both: number of examples that both classify correctly.
        only_first: number that only the first classifies correctly.
        only_second: number that only the second classifies correctly.
        neither: number that neither classifies correctly.
        level: the confidence level, in (0, 1).

    Returns:
        Difference, p-value and interval.

    Raises:
        UsageError: no examples, or a negative count.

    Source: McNemar, Psychometrika 12, 1947; Newcombe, Statistics in Medicine 17, 1998, 2635-2650.

    >>> found = paired(80, 4, 12, 4)
    >>> found.difference, round(found.p_value, 4)
    (0.08, 0.0768)
    """
    counts = (both, only_first, only_second, neither)
    n = sum(counts)
    if n < 1 or min(counts) < 0:
        raise UsageError(f"{counts} are no counts of paired outcomes")
    from scipy.stats import binom

    unlike = only_first + only_second
    tail = float(binom.cdf(min(only_first, only_second), unlike, 0.5)) if unlike else 1.0
    return Paired(
        n=n,
        only_first=only_first,
        only_second=only_second,
        difference=(only_second - only_first) / n,
        p_value=min(1.0, 2 * tail),
        interval=paired_interval(*counts, level),
    )


def paired_interval(
    both: float, only_first: float, only_second: float, neither: float, level: float = 0.95
) -> Interval:
    """Newcombe's interval of the difference of paired proportions, the second's minus the first's.

    Counts are not integers where they come from an effective sample size.
    """
    n = both + only_first + only_second + neither
    first, second = min(n, both + only_first), min(n, both + only_second)
    p, q = first / n, second / n
    one, other = wilson(first, n, level), wilson(second, n, level)
    product = first * (n - first) * second * (n - second)
    excess = both * neither - only_first * only_second
    correction = max(excess - n / 2, 0) if excess > 0 else excess
    phi = correction / product**0.5 if product else 0.0
    down = (q - other.low) ** 2 - 2 * phi * (q - other.low) * (one.high - p) + (one.high - p) ** 2
    up = (other.high - q) ** 2 - 2 * phi * (other.high - q) * (p - one.low) + (p - one.low) ** 2
    return Interval(
        low=q - p - max(down, 0) ** 0.5,
        high=q - p + max(up, 0) ** 0.5,
        level=level,
        method="newcombe-paired",
    )
