"""Correlations of two quantities over a set of models, with bootstrap intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist
from typing import TYPE_CHECKING, TypeAlias

from robaudit.schema import Interval

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array: TypeAlias = NDArray[np.float64]

# Of n models Kendall's takes n^2 operations a resample; of many, fewer resamples are enough.
_RESAMPLES, _FEWEST, _OPERATIONS = 4000, 250, 250_000_000


@dataclass(frozen=True)
class Correlation:
    """Pearson's, Spearman's and Kendall's coefficient over ``n`` pairs; Kendall's is tau-b.

    Attributes:
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
    """How two quantities go together; ``None`` for fewer than three pairs or a constant quantity.

    The interval comes from drawing the pairs with replacement, as if the models were a random
    sample: for checkpoints of one training run, which are not, it describes and infers nothing.
    Resamples in which a quantity is constant have no coefficient and are left out.

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
    pair = _Quantity.of(a), _Quantity.of(b)
    (pearson,), (spearman,), (kendall,) = (each(*pair, np.ones((1, n))) for each in _COEFFICIENTS)
    intervals: list[Interval] = []
    if n >= 5:
        times = _resamples(n, seed)
        varied = [(quantity.gathered(times) > 0).sum(1) > 1 for quantity in pair]
        kept = times[varied[0] & varied[1]]
        tail = 100 * (1 - level) / 2
        for each in _COEFFICIENTS:
            low, high = np.percentile(each(*pair, kept), [tail, 100 - tail])
            intervals.append(
                Interval(
                    low=float(low), high=float(high), level=level, method="bootstrap over models"
                )
            )
        intervals[0] = _as_wide_as_fishers(intervals[0], float(pearson), n)
    return Correlation(len(a), float(pearson), float(spearman), float(kendall), *intervals)


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


@lru_cache(maxsize=4)
def _resamples(n: int, seed: int) -> Array:
    """How often each of ``n`` pairs is drawn in each resample."""
    import numpy as np

    count = max(_FEWEST, min(_RESAMPLES, _OPERATIONS // n**2))
    found: Array = np.random.default_rng(seed).multinomial(n, [1 / n] * n, size=count).astype(float)
    found.flags.writeable = False
    return found


@dataclass(frozen=True)
class _Quantity:
    """Values of the pairs; those that are equal form a group, the groups are in ascending order.

    Attributes:
        order: places of the values, ascending.
        starts: where in that order each group begins.
        group: of each value.
    """

    values: Array
    order: NDArray[np.int64]
    starts: NDArray[np.int64]
    group: NDArray[np.int64]

    @classmethod
    def of(cls, values: Array) -> _Quantity:
        import numpy as np

        order = np.argsort(values, kind="stable")
        _, starts, group = np.unique(values[order], return_index=True, return_inverse=True)
        back = np.empty_like(group)
        back[order] = group
        return cls(values, order, starts, back)

    def gathered(self, times: Array) -> Array:
        """How often each group was drawn."""
        import numpy as np

        found: Array = np.add.reduceat(times[:, self.order], self.starts, axis=1)
        return found

    def ranks(self, times: Array) -> Array:
        """Each value's rank in the resample, from one; equal values share the mean of theirs."""
        drawn = self.gathered(times)
        found: Array = (drawn.cumsum(1) - (drawn - 1) / 2)[:, self.group]
        return found


# Each of the following has a coefficient for every row of ``times``: how often each pair was drawn.


def _pearson(a: _Quantity, b: _Quantity, times: Array) -> Array:
    return _cosines(a.values[None], b.values[None], times)


def _spearman(a: _Quantity, b: _Quantity, times: Array) -> Array:
    return _cosines(a.ranks(times), b.ranks(times), times)


def _kendall(a: _Quantity, b: _Quantity, times: Array) -> Array:
    """``sum_ij s_ij t_ij / sqrt(sum_ij s_ij^2 sum_ij t_ij^2)``, ``s`` and ``t`` the signs of the
    differences in either quantity.
    """
    import numpy as np

    # Signs and counts are small whole numbers, which float32 holds exactly.
    places = [q.group.astype(np.float32) for q in (a, b)]
    s, t = (np.sign(np.subtract.outer(place, place)) for place in places)
    together = ((times.astype(np.float32) @ (s * t)) * times).sum(1)
    squares = times.sum(1) ** 2
    left, right = (squares - (q.gathered(times) ** 2).sum(1) for q in (a, b))
    found: Array = together / np.sqrt(left * right)
    return found


_COEFFICIENTS = (_pearson, _spearman, _kendall)


def _cosines(a: Array, b: Array, times: Array) -> Array:
    import numpy as np

    n = times.sum(1, keepdims=True)
    a, b = (values - (values * times).sum(1, keepdims=True) / n for values in (a, b))
    weighted = a * times
    found: Array = (weighted * b).sum(1) / np.sqrt((weighted * a).sum(1) * (b * b * times).sum(1))
    return found.clip(-1, 1)
