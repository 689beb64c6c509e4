"""Confidence that may be looked at after every draw: sampling without replacement."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from robaudit.errors import UsageError

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Counts:
    """How many of the ``population`` are successes: at least ``low``, at most ``high``."""

    low: int
    high: int
    population: int


@dataclass(frozen=True)
class Stratum:
    """A part of a population: of ``draws`` from its ``size``, ``least`` to ``most`` succeeded."""

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
    """What ``draws`` draws without replacement say of a finite population, at any time.

    With a beta-binomial prior on the number ``m`` of successes in the population, the ratio of
    prior to posterior at the true ``m`` is a martingale that starts at 1. It exceeds ``1 / alpha``
    at any time, however often one looks, with probability at most ``alpha`` (Ville). So the ``m``
    whose ratio is below it cover the truth at all times together with probability ``1 - alpha``,
    whatever the prior; a better guess makes them fewer. After the last draw one ``m`` is left.

    Args:
        successes: among the draws.
        prior: ``(a, b)`` of the beta distribution.

    Raises:
        UsageError: counts that cannot be, an ``alpha`` outside (0, 1), or a prior that is none.

    Source: Waudby-Smith & Ramdas, "Confidence sequences for sampling without replacement",
    NeurIPS 2020, Theorem 3.1.

    >>> population_counts(95, 100, 1000)
    Counts(low=846, high=991, population=1000)
    >>> population_counts(950, 1000, 1000)
    Counts(low=950, high=950, population=1000)
    """
    if not 0 <= successes <= draws <= population or population < 1:
        raise UsageError(f"{successes} of {draws} draws from {population} cannot be")
    a, b = prior
    if not (0 < alpha < 1 and a > 0 and b > 0 and math.isfinite(a + b)):
        raise UsageError(f"alpha {alpha:g} or the prior ({a:g}, {b:g}) cannot be meant")
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
    """Whether at least ``least`` of the population are successes, once :func:`population_counts`
    leaves no doubt: ``low >= least``, or ``high < least``; else ``None``.

    The ratio at ``m`` is ``P(successes) / P_m(successes)``, of the beta-binomial and of the
    hypergeometric probability, so that it falls up to the likeliest ``m`` and rises after it: one
    look at the boundary tells.

    ``low`` and ``high`` rise with the successes, so that a ``False`` on an upper bound of the
    successes and a ``True`` on a lower bound hold for the successes themselves. This takes ``a, b
    >= 1`` and ``alpha <= 0.3``: ``P_m(s - 1) / P_m(s)`` falls with ``m`` and is convex, and ``P(s -
    1) / P(s)`` is its posterior mean, no less than its value at the posterior mean of ``m``. To the
    right of ``high`` lies at most ``alpha`` of the posterior, which is log-concave, so that its
    mean lies to the left. There the ratio thus only rises when a success is taken away.

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
    """:func:`population_counts` of a population in two strata of known sizes.

    Drawn in random order from the whole, each stratum is drawn from at random, and each has its
    ratio of prior to posterior; a draw moves one of them alone, so that their product is a
    martingale too. The pairs of counts at which it is below ``1 / alpha`` cover the true pair at
    all times with probability ``1 - alpha``; ``low`` and ``high`` are the ends of their sums. Where
    the strata are far from each other in their shares, the ends are nearer than those of
    :func:`population_counts`.

    Of successes that are known only up to a range, each pair of counts is kept that any of them
    keeps.

    >>> stratified_counts(Stratum(500, 50, 48, 48), Stratum(500, 50, 2, 2))
    Counts(low=393, high=607, population=1000)
    >>> population_counts(50, 100, 1000)
    Counts(low=352, high=648, population=1000)
    """
    import numpy as np

    one, other = _log_ratios(first, alpha), _log_ratios(second, alpha)
    # How high the second may be, where the first is so high.
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
    """The ratio's logarithm, smallest over the successes there may be, at each possible count from
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
        raise UsageError(f"alpha {alpha:g} cannot be meant")


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
