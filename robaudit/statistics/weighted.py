"""Correlation coefficients of points with counts: of resamples, and of all points but one.

A row of ``w`` says how often each point is in a resample. No resample is written out: ranks and
pairs are counted by products of matrices. Every function gives one coefficient for each row, and
``nan`` where a quantity is constant in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[np.float64]
Sets: TypeAlias = Sequence[Sequence[Sequence[int]]]
"""For each hyper-parameter the sets of models, by their place, that differ in it alone."""


def pearson(x: Array, y: Array, w: Array) -> Array:
    """Pearson's coefficient of two quantities ``(n,)`` in resamples ``(B, n)``."""
    return _varying(_product_moment(x, y, w), (x, y), w)


def spearman(x: Array, y: Array, w: Array) -> Array:
    """Spearman's: Pearson's of the ranks, equal values having their mean rank."""
    return _varying(_product_moment(_ranks(x, w), _ranks(y, w), w), (x, y), w)


def partial_spearman(x: Array, y: Array, given: Array, w: Array) -> Array:
    """Spearman's coefficient of ``x`` and ``y`` with ``given`` held fixed.

    ``(r_xy - r_xz r_yz) / sqrt((1 - r_xz^2) (1 - r_yz^2))``, ``r`` Spearman's coefficients and
    ``z`` what is given: Pearson's coefficient of what is left of the ranks of ``x`` and ``y`` after
    linear regression on the ranks of ``z``. ``nan`` where nothing is left of one of them.
    """
    a, b, c = (_ranks(q, w) for q in (x, y, given))
    ab, ac, bc = (_product_moment(*pair, w) for pair in ((a, b), (a, c), (b, c)))
    left = (1 - ac**2) * (1 - bc**2)
    with np.errstate(invalid="ignore", divide="ignore"):
        found: Array = np.where(left > _NOTHING, (ab - ac * bc) / np.sqrt(left), np.nan)
    return _varying(found.clip(-1, 1), (x, y, given), w)


def kendall(x: Array, y: Array, w: Array) -> Array:
    """Kendall's tau-b: ``sum_ij s_ij t_ij / sqrt(sum_ij s_ij^2 sum_ij t_ij^2)``.

    ``s`` and ``t`` are the signs of the differences in either quantity.
    """
    s, t = _signs(x), _signs(y)
    together, first, second = (_pairs(product, w) for product in (s * t, s * s, t * t))
    with np.errstate(invalid="ignore"):
        found: Array = together / np.sqrt(first * second)
    return found


def granulated(x: Array, y: Array, sets: Sets, w: Array) -> Array:
    """The granulated Kendall coefficient, Psi.

    For each hyper-parameter the mean of ``tau = sum_ij s_ij t_ij / (m (m - 1))`` over the sets of
    ``m`` models that differ in it alone; Psi is the mean of these over the hyper-parameters. A set
    of which a resample has less than two models is left out of it.

    Source: Jiang, Neyshabur, Mobahi, Krishnan & Bengio, "Fantastic generalization measures and
    where to find them", ICLR 2020, Eq. 3 to 5.
    """
    together = _signs(x) * _signs(y)
    with np.errstate(invalid="ignore", divide="ignore"):
        means = [
            _mean(np.stack([_tau(together, w, np.asarray(one)) for one in own])) for own in sets
        ]
    return _mean(np.stack(means))


def _tau(together: Array, w: Array, at: NDArray[np.int64]) -> Array:
    own = w[:, at]
    distinct = 1 - np.eye(len(at))
    found: Array = _pairs(together[np.ix_(at, at)], own) / _pairs(distinct, own)
    return found


def _mean(rows: Array) -> Array:
    """The mean over rows of what is a number; ``nan`` where nothing is."""
    known = np.isfinite(rows)
    with np.errstate(invalid="ignore"):
        found: Array = np.where(known, rows, 0.0).sum(0) / known.sum(0)
    return found


# What rounding leaves of one minus a square that is one.
_NOTHING = 1e-12


def _ranks(x: Array, w: Array) -> Array:
    """The ranks in each resample, less a constant: points below, and half of the equal ones."""
    below = np.greater(x[:, None], x[None, :]) + 0.5 * np.equal(x[:, None], x[None, :])
    found: Array = w @ below.T
    return found


def _product_moment(a: Array, b: Array, w: Array) -> Array:
    total = w.sum(-1, keepdims=True)
    a, b = (q - (w * q).sum(-1, keepdims=True) / total for q in (a, b))
    with np.errstate(invalid="ignore", divide="ignore"):
        found: Array = (w * a * b).sum(-1) / np.sqrt((w * a * a).sum(-1) * (w * b * b).sum(-1))
    return found.clip(-1, 1)


def _signs(x: Array) -> Array:
    found: Array = np.sign(x[:, None] - x[None, :])
    return found


def _pairs(matrix: Array, w: Array) -> Array:
    """``w^T matrix w`` for each row."""
    found: Array = ((w @ matrix) * w).sum(-1)
    return found


def _varying(found: Array, quantities: Sequence[Array], w: Array) -> Array:
    """``nan`` where a quantity is constant: rounding could leave any number there."""
    for q in quantities:
        found = np.where(_pairs(np.abs(_signs(q)), w) > 0, found, np.nan)
    return found
