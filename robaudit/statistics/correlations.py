"""Correlations of two quantities over a set of models, with bootstrap intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from robaudit.schema import Interval

if TYPE_CHECKING:
    from numpy.typing import NDArray

_RESAMPLES = 4000


@dataclass(frozen=True)
class Correlation:
    """Pearson's and Spearman's coefficient over ``n`` pairs.

    Attributes:
        pearson_interval, spearman_interval: bootstrap percentiles; ``None`` for fewer than five
            pairs, whose resamples repeat too few of them.
    """

    n: int
    pearson: float
    spearman: float
    pearson_interval: Interval | None
    spearman_interval: Interval | None


def correlation(
    x: Sequence[float], y: Sequence[float], level: float = 0.95, seed: int = 0
) -> Correlation | None:
    """How two quantities go together; ``None`` for fewer than three pairs or a constant quantity.

    The interval comes from drawing the pairs with replacement, as if the models were a random
    sample: for checkpoints of one training run, which are not, it describes and infers nothing.
    Resamples in which a quantity is constant have no coefficient and are left out.

    >>> correlation([1, 2, 3], [2, 4, 7]).spearman
    1.0
    """
    import numpy as np

    a, b = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    if len(a) != len(b):
        raise ValueError(f"{len(a)} values and {len(b)}")
    if len(a) < 3 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return None
    pearson, spearman = _coefficient(a, b), _coefficient(_ranks(a), _ranks(b))
    pairs: list[Interval | None] = [None, None]
    if len(a) >= 5:
        draws = np.random.default_rng(seed).integers(len(a), size=(_RESAMPLES, len(a)))
        kept = [rows for rows in draws if np.ptp(a[rows]) > 0 and np.ptp(b[rows]) > 0]
        tail = 100 * (1 - level) / 2
        samples = [(a[rows], b[rows]) for rows in kept]
        for at in range(2):
            if at == 1:
                samples = [(_ranks(left), _ranks(right)) for left, right in samples]
            found = [_coefficient(left, right) for left, right in samples]
            low, high = np.percentile(found, [tail, 100 - tail])
            pairs[at] = Interval(
                low=float(low), high=float(high), level=level, method="bootstrap over models"
            )
    return Correlation(len(a), pearson, spearman, pairs[0], pairs[1])


def _coefficient(a: NDArray[Any], b: NDArray[Any]) -> float:
    a, b = a - a.mean(), b - b.mean()
    return float(min(1.0, max(-1.0, (a @ b) / ((a @ a) * (b @ b)) ** 0.5)))


def _ranks(values: NDArray[Any]) -> NDArray[Any]:
    """Ranks from one; equal values share the mean of theirs."""
    import numpy as np

    _, where, counts = np.unique(values, return_inverse=True, return_counts=True)
    found: NDArray[Any] = (np.cumsum(counts) - (counts - 1) / 2)[where]
    return found
