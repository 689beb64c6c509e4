"""Correlations of two quantities over a set of models, with bootstrap intervals."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING, TypeAlias

from robaudit.schema import Interval

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array: TypeAlias = NDArray[np.float64]
    Statistic: TypeAlias = Callable[[Array, Array], Array]

# Kendall's coefficient takes n^2 operations a resample; with many models fewer resamples suffice.
_RESAMPLES, _FEWEST, _OPERATIONS = 4000, 250, 250_000_000
# Numbers that Kendall's pairwise signs may fill at once.
_TOGETHER = 1 << 22


@dataclass(frozen=True)
class Correlation:
    """Correlation coefficients over pairs of values.

    Attributes:
        n: number of pairs.
        pearson: Pearson's coefficient.
        spearman: Spearman's.
        kendall: Kendall's tau-b.
        spearman_interval, kendall_interval: bootstrap percentiles; ``None`` for fewer than five
            pairs, whose resamples repeat too few of them.
        pearson_interval: the same, reaching at least as far as Fisher's z on both sides.
    """

    n: int
    pearson: float
    spearman: float
    kendall: float
    pearson_interval: Interval | None = None
    spearman_interval: Interval | None = None
    kendall_interval: Interval | None = None


def correlation(
    x: Sequence[float], y: Sequence[float], level: float = 0.95, seed: int = 0
) -> Correlation | None:
    """Correlation of two quantities; ``None`` for fewer than three pairs or a constant quantity.

    The intervals come from resampling the pairs with replacement, as if the models were a random
    sample. Checkpoints of one training run are not: there they describe the spread only. Resamples
    in which a quantity is constant have no coefficient and are left out.

    Percentiles of Pearson's coefficient alone are too narrow for few pairs: in simulations of
    normal pairs 95 % intervals held the truth in 88 to 93 % of the cases. ``tanh(atanh r -+ z /
    sqrt(n - 3))`` holds it in 95 % of these, and in fewer where a quantity has long tails; the
    wider of the two ends counts. Those of the rank correlations are nearer their level.

    Sources: M. G. Kendall, "The treatment of ties in ranking problems", Biometrika 1945 (tau-b);
    R. A. Fisher, "On the probable error of a coefficient of correlation", Metron 1921.

    >>> correlation([1, 2, 3], [2, 4, 7]).spearman
    1.0
    """
    import numpy as np

    a, b = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    if len(a) != len(b):
        raise ValueError(f"{len(a)} values and {len(b)}")
    if len(a) < 3 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return None
    n = len(a)
    pearson, spearman, kendall = (float(statistic(a, b)) for statistic in _STATISTICS)
    intervals: list[Interval] = []
    if n >= 5:
        intervals = [_percentiles(a, b, statistic, level, seed) for statistic in _STATISTICS]
        intervals[0] = _as_wide_as_fishers(intervals[0], pearson, n)
    return Correlation(n, pearson, spearman, kendall, *intervals)


def _percentiles(a: Array, b: Array, statistic: Statistic, level: float, seed: int) -> Interval:
    import numpy as np
    from scipy.stats import bootstrap

    n, tail = len(a), 100 * (1 - level) / 2
    with warnings.catch_warnings():
        # A resample in which a quantity is constant has no coefficient, which scipy warns of.
        warnings.simplefilter("ignore")
        found = bootstrap(
            (a, b),
            statistic,
            paired=True,
            vectorized=True,
            method="percentile",
            n_resamples=max(_FEWEST, min(_RESAMPLES, _OPERATIONS // n**2)),
            batch=max(1, _TOGETHER // n**2),
            random_state=np.random.default_rng(seed),
        )
    low, high = np.nanpercentile(found.bootstrap_distribution, [tail, 100 - tail])
    return Interval(low=float(low), high=float(high), level=level, method="bootstrap over models")


def _as_wide_as_fishers(found: Interval, r: float, n: int) -> Interval:
    if abs(r) >= 1:  # all on a line, in every resample too
        return found
    reach = -NormalDist().inv_cdf((1 - found.level) / 2) / math.sqrt(n - 3)
    low, high = (math.tanh(math.atanh(r) + side * reach) for side in (-1, 1))
    return Interval(
        low=min(low, found.low),
        high=max(high, found.high),
        level=found.level,
        method="bootstrap over models and Fisher's z, the wider",
    )


# Each of the following has one coefficient for every pair of rows of ``a`` and ``b``.


def _pearson(a: Array, b: Array, axis: int = -1) -> Array:
    import numpy as np

    a, b = (values - values.mean(axis, keepdims=True) for values in (a, b))
    with np.errstate(invalid="ignore"):
        found: Array = (a * b).sum(axis) / np.sqrt((a * a).sum(axis) * (b * b).sum(axis))
    return found.clip(-1, 1)


def _spearman(a: Array, b: Array, axis: int = -1) -> Array:
    from scipy.stats import rankdata

    return _pearson(rankdata(a, axis=axis), rankdata(b, axis=axis), axis)


def _kendall(a: Array, b: Array, axis: int = -1) -> Array:
    """``sum_ij s_ij t_ij / sqrt(sum_ij s_ij^2 sum_ij t_ij^2)``, ``s`` and ``t`` the signs of the
    differences in either quantity.
    """
    import numpy as np

    s, t = (
        np.greater(left, right).astype(np.int8) - np.less(left, right)
        for left, right in ((q[..., :, None], q[..., None, :]) for q in (a, b))
    )
    together, first, second = (
        product.sum((-2, -1), dtype=np.float64) for product in (s * t, s * s, t * t)
    )
    with np.errstate(invalid="ignore"):
        found: Array = together / np.sqrt(first * second)
    return found


_STATISTICS: tuple[Statistic, ...] = (_pearson, _spearman, _kendall)
