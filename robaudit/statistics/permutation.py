"""A permutation test of a rank correlation for grouped models, and a correction for many tests."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from functools import lru_cache
from itertools import permutations, product

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

_ALL, _DRAWN = 10_000, 9_999
FEWEST_ARRANGEMENTS = 20
"""With fewer no p value can be 0.05 or below."""


def permutation_p_value(
    x: Sequence[float],
    y: Sequence[float],
    groups: Sequence[Hashable] | None = None,
    strata: Sequence[Hashable] | None = None,
    seed: int = 0,
) -> float | None:
    """The p value of Spearman's coefficient when whole groups change places.

    The outcomes ``y`` of a group are given, in their order, to another group of as many models in
    the same stratum; the p value is the share of arrangements whose coefficient is as far from
    zero. What all groups have in common, as the trend over the epochs of training runs, is in every
    arrangement and counts for nothing. All arrangements are taken where there are 10 000 or fewer,
    else 9 999 are drawn, and the one that was found counts as one more.

    Args:
        groups: of each model, such as its training run; by default each is its own.
        strata: of each model, such as its architecture; the same for all models of a group.

    Returns:
        ``None`` for fewer than 20 arrangements, or a constant quantity.

    Source: Phipson & Smyth, "Permutation p-values should never be zero", 2010.

    >>> permutation_p_value([1, 2, 3, 4, 5], [1, 2, 3, 4, 5]) == 2 / 120
    True
    """
    n = len(x)
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return None
    own = tuple(range(n) if groups is None else groups)
    same = (0,) * n if strata is None else tuple(strata)
    orders = _orders(own, same, seed)
    if orders is None:
        return None
    a, b = (rankdata(q) - (n + 1) / 2 for q in (x, y))
    found = np.abs(b[orders] @ a)
    far = int((found >= abs(float(a @ b)) - 1e-9 * float(a @ a)).sum())
    drawn = len(orders) == _DRAWN
    return (far + drawn) / (len(orders) + drawn)


def arrangements(groups: Sequence[Hashable], strata: Sequence[Hashable]) -> int:
    """In how many ways groups of as many models in the same stratum can change places."""
    return math.prod(math.factorial(len(own)) for own in _alike(groups, strata))


def _alike(groups: Sequence[Hashable], strata: Sequence[Hashable]) -> list[NDArray[np.int64]]:
    """For each size and stratum the places of the models, a row for each group."""
    members: dict[Hashable, list[int]] = {}
    for at, group in enumerate(groups):
        members.setdefault(group, []).append(at)
    alike: dict[Hashable, list[list[int]]] = {}
    for own in members.values():
        alike.setdefault((strata[own[0]], len(own)), []).append(own)
    return [np.array(own) for own in alike.values()]


@lru_cache(maxsize=64)
def _orders(
    groups: tuple[Hashable, ...], strata: tuple[Hashable, ...], seed: int
) -> NDArray[np.int64] | None:
    """A row for each arrangement: whose outcome each model has."""
    count, blocks = arrangements(groups, strata), _alike(groups, strata)
    if count < FEWEST_ARRANGEMENTS:
        return None
    if count <= _ALL:
        every = product(*(permutations(range(len(own))) for own in blocks))
        chosen = [[np.array(one) for one in of_blocks] for of_blocks in every]
    else:
        rng = np.random.default_rng(seed)
        chosen = [[rng.permutation(len(own)) for own in blocks] for _ in range(_DRAWN)]
    found = np.empty((len(chosen), len(groups)), dtype=np.int64)
    for row, of_blocks in zip(found, chosen, strict=True):
        for own, order in zip(blocks, of_blocks, strict=True):
            row[own] = own[order]
    return found


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """P values corrected for their number, so that the chance of any false finding is bounded.

    The ``k``-th smallest of ``m`` is multiplied by ``m - k + 1``, and none is less than one before
    it. It holds whatever the dependence between the tests.

    Source: S. Holm, "A simple sequentially rejective multiple test procedure", 1979.

    >>> holm([0.01, None, 0.03, 0.02])
    [0.03, None, 0.04, 0.04]
    """
    known = sorted((p, at) for at, p in enumerate(p_values) if p is not None)
    found: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for place, (p, at) in enumerate(known):
        largest = max(largest, min(1.0, p * (len(known) - place)))
        found[at] = largest
    return found
