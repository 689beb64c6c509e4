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


def _log_mass(k: NDArray[Any], n: int, a: float, b: float) -> NDArray[Any]:
    """Of the beta-binomial distribution."""
    from scipy.special import betaln, gammaln

    ways = gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1)
    mass: NDArray[Any] = ways + betaln(k + a, n - k + b) - betaln(a, b)
    return mass
