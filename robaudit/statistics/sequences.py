"""Confidence sequences for sampling without replacement, valid after every draw."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from robaudit.errors import UsageError

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Counts:
    """Bounds on the number of successes in a population.

    Attributes:
        low: least number of successes.
        high: largest number of successes.
        population: size of the population.
    """

    low: int
    high: int
    population: int


@dataclass(frozen=True)
class Stratum:
    """Draws from one part of a population.

    Attributes:
        size: size of the part.
        draws: number of draws from it.
        least: least number of successes among the draws.
        most: largest number of successes among the draws.
    """

    size: int
    draws: int
    least: int
    most: int


def population_counts(
    successes: int,
    draws: int,
    population: int,
    alpha: float = 0.05,
    prior: tuple[float, float] = (1.0, 1.0),
) -> Counts:
    """A confidence sequence for the number of successes in a finite population.

    With a beta-binomial prior on the number ``m`` of successes in the population, the ratio of
    prior to posterior at the true ``m`` is a martingale that starts at 1. The probability that it
    ever exceeds ``1 / alpha``, over all draws, is at most ``alpha`` (Ville). So the ``m`` whose
    ratio is below it contain the truth after every draw simultaneously with probability ``1 -
    alpha``, whatever the prior; a prior nearer the truth makes them fewer. After the last draw one
    ``m`` is left.

    Args:
        successes: number of successes among the draws.
        draws: number of draws without replacement.
        population: size of the population.
        alpha: probability of ever missing the truth, in (0, 1).
        prior: ``(a, b)`` of the beta distribution.

    Returns:
        The smallest and the largest number of successes that remain.

    Raises:
        UsageError: impossible counts, an ``alpha`` outside (0, 1), or an invalid prior.

    Source: Waudby-Smith & Ramdas, "Confidence sequences for sampling without replacement",
    NeurIPS 2020, Theorem 3.1.

    >>> population_counts(95, 100, 1000)
    Counts(low=846, high=991, population=1000)
    >>> population_counts(950, 1000, 1000)
    Counts(low=950, high=950, population=1000)
    """
    _check_draws(successes, draws, population, alpha)
    if population < 1:
        raise UsageError("the population is empty")
    a, b = prior
    if not (a > 0 and b > 0 and math.isfinite(a + b)):
        raise UsageError(f"the prior must be positive, not ({a:g}, {b:g})")
    import numpy as np

    m = np.arange(successes, population - (draws - successes) + 1, dtype=np.float64)
    prior_mass = _log_mass(m, population, a, b)
    posterior_mass = _log_mass(
        m - successes, population - draws, a + successes, b + draws - successes
    )
    kept = m[prior_mass - posterior_mass < -math.log(alpha)]
    return Counts(int(kept.min()), int(kept.max()), population)


def settled(
    successes: int,
    draws: int,
    population: int,
    least: int,
    alpha: float = 0.05,
    prior: tuple[float, float] = (1.0, 1.0),
) -> bool | None:
    """Whether at least ``least`` of the population are successes, if :func:`population_counts`
    decides it.

    The ratio at ``m`` is ``P(successes) / P_m(successes)``, of the beta-binomial and of the
    hypergeometric probability. It falls up to the likeliest ``m`` and rises after it, so that its
    value at the boundary decides.

    ``low`` and ``high`` rise with the successes, so that a ``False`` on an upper bound of the
    successes and a ``True`` on a lower bound hold for the successes themselves. This takes ``a, b
    >= 1`` and ``alpha <= 0.3``: ``P_m(s - 1) / P_m(s)`` falls with ``m`` and is convex, and ``P(s -
    1) / P(s)`` is its posterior mean, no less than its value at the posterior mean of ``m``. To the
    right of ``high`` lies at most ``alpha`` of the posterior, which is log-concave, so that its
    mean lies to the left. There the ratio thus only rises when a success is removed.

    Args:
        successes: number of successes among the draws.
        draws: number of draws without replacement.
        population: size of the population.
        least: the number of successes in question.
        alpha: probability of ever deciding wrongly, in (0, 1).
        prior: ``(a, b)`` of the beta distribution.

    Returns:
        ``True`` for ``low >= least``, ``False`` for ``high < least``, else ``None``.

    Raises:
        UsageError: impossible counts, or an ``alpha`` outside (0, 1).

    >>> settled(95, 100, 1000, 840), settled(95, 100, 1000, 995), settled(95, 100, 1000, 900)
    (True, False, None)
    """
    _check_draws(successes, draws, population, alpha)
    if least <= successes:
        return True
    if least > population - (draws - successes):
        return False
    if draws == 0:
        return None
    likeliest = successes * (population + 1) // draws
    below = least - 1 < likeliest
    m = least - 1 if below else least
    if m == likeliest:
        return None
    a, b = prior
    log_ratio = (
        _log_choose(draws, successes)
        + _log_beta(a + successes, b + draws - successes)
        - _log_beta(a, b)
        - _log_choose(m, successes)
        - _log_choose(population - m, draws - successes)
        + _log_choose(population, draws)
    )
    return below if log_ratio >= -math.log(alpha) else None


def stratified_counts(first: Stratum, second: Stratum, alpha: float = 0.05) -> Counts:
    """:func:`population_counts` for a population in two strata of known sizes.

    In a random order of the whole population, the draws from each stratum are in random order, and
    each stratum has its ratio of prior to posterior. A draw changes only one of them, so that their
    product is a martingale too. The pairs of counts at which it is below ``1 / alpha`` contain the
    true pair after every draw with probability ``1 - alpha``; ``low`` and ``high`` are the extremes
    of their sums. They are closer than those of :func:`population_counts` where the fractions of
    successes in the strata differ much.

    Where successes are known only up to a range, a pair is kept if any value in the range keeps it.

    Args:
        first: draws from the first stratum.
        second: draws from the second.
        alpha: probability of ever missing the truth, in (0, 1).

    Returns:
        Bounds on the number of successes in both strata together.

    >>> stratified_counts(Stratum(500, 50, 48, 48), Stratum(500, 50, 2, 2))
    Counts(low=393, high=607, population=1000)
    >>> population_counts(50, 100, 1000)
    Counts(low=352, high=648, population=1000)
    """
    import numpy as np

    one, other = _log_ratios(first, alpha), _log_ratios(second, alpha)
    # The largest log ratio of the second stratum for each count in the first.
    room = -math.log(alpha) - one
    kept = np.nonzero(room > other.min())[0]
    falling = np.minimum.accumulate(other)
    rising = np.minimum.accumulate(other[::-1])[::-1]
    lowest = np.searchsorted(-falling, -room[kept], side="right")
    highest = np.searchsorted(rising, room[kept], side="left") - 1
    base = first.least + second.least
    return Counts(
        int((base + kept + lowest).min()),
        int((base + kept + highest).max()),
        first.size + second.size,
    )


def _log_ratios(stratum: Stratum, alpha: float) -> NDArray[Any]:
    """The ratio's logarithm, minimal over the range of successes, at each possible count from
    ``least`` upwards; uniform prior.
    """
    import numpy as np
    from scipy.special import gammaln

    size, draws, least, most = stratum.size, stratum.draws, stratum.least, stratum.most
    _check_draws(least, draws, size, alpha)
    _check_draws(most, draws, size, alpha)
    m = np.arange(least, size - (draws - most) + 1, dtype=np.float64)
    likeliest = np.floor((draws + 1) * (m + 1) / (size + 2))
    s = np.clip(likeliest, np.maximum(least, draws - size + m), np.minimum(most, m))
    rest, failures = size - m, draws - s
    log_p = (
        gammaln(m + 1)
        - gammaln(s + 1)
        - gammaln(m - s + 1)
        + gammaln(rest + 1)
        - gammaln(failures + 1)
        - gammaln(rest - failures + 1)
        - _log_choose(size, draws)
    )
    ratios: NDArray[Any] = -math.log(draws + 1) - log_p
    return ratios


def _check_draws(successes: int, draws: int, population: int, alpha: float) -> None:
    if not 0 <= successes <= draws <= population:
        raise UsageError(f"{successes} of {draws} draws from {population} cannot be")
    if not 0 < alpha < 1:
        raise UsageError(f"alpha must be in (0, 1), not {alpha:g}")


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)


def _log_mass(k: NDArray[Any], n: int, a: float, b: float) -> NDArray[Any]:
    """Of the beta-binomial distribution."""
    from scipy.special import betaln, gammaln

    ways = gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1)
    mass: NDArray[Any] = ways + betaln(k + a, n - k + b) - betaln(a, b)
    return mass
