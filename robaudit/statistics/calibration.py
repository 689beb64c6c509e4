"""How far predicted probabilities are from frequencies: calibration error and Brier score."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robaudit.errors import NotMeasuredError, UsageError
from robaudit.schema import Interval
from robaudit.statistics.intervals import clopper_pearson

Array = NDArray[np.float64]

BINS = 15
# Bins of fewer examples say little; then there are fewer bins.
_FEWEST = 10
_RESAMPLES = 1000
_METHOD = "bootstrap over examples and clopper-pearson, the wider"
# Numbers of one matrix of resamples.
_TOGETHER = 1 << 22


@dataclass(frozen=True)
class Bin:
    """Examples of similar confidence: how many, their mean confidence, and how many are right."""

    n: int
    confidence: float
    correct: int


@dataclass(frozen=True)
class CalibrationError:
    """A debiased calibration error; see :func:`calibration_error`.

    Attributes:
        value: ``sqrt(max(0, squared))``.
        squared: the unbiased estimate of the mean square, which may be below zero.
        interval: of ``value``.
        plug_in: the biased estimate ``sum_b n_b / n |r_b|`` on the same bins.
        bins: in ascending order of confidence.
    """

    value: float
    squared: float
    interval: Interval
    plug_in: float
    bins: tuple[Bin, ...]


def calibration_error(
    confidence: NDArray[Any],
    correct: NDArray[Any],
    *,
    bins: int = BINS,
    level: float = 0.95,
    seed: int = 0,
) -> CalibrationError:
    """The root mean square calibration error over bins of equal mass, debiased.

    With ``r_i = correct_i - confidence_i`` and ``n_b`` examples in bin ``b`` of mean ``r_b``:
    ``squared = sum_b n_b / n (r_b^2 - s_b^2)``, ``s_b^2 = sum_i (r_i - r_b)^2 / (n_b (n_b - 1))``,
    which in each bin is the mean of ``r_i r_j`` over pairs of different examples. Its expectation
    is the mean over examples of the squared error of their bin, so zero for calibrated confidences,
    where ``|r_b|`` without ``s_b`` is ``sqrt(2 / (pi n_b))`` times a standard deviation.

    Bins end at quantiles of the confidence and have ten examples or more; equal confidences share
    one. The interval is ``squared -+ z s``, ``s`` the standard deviation over 1000 resamples of
    the examples with the bins held fixed; its ends are cut at zero and rooted. It errs on the wide
    side near zero. Resamples of outcomes that are all alike do not vary: the interval reaches at
    least as far to each side as that of ``|accuracy - mean confidence|`` by Clopper and Pearson,
    which the error is never below.

    Args:
        confidence: ``(n,)`` probabilities of the predicted classes.
        correct: ``(n,)`` whether each prediction is right.
        bins: at most.
        level: of the interval.
        seed: of the resamples. The order of the examples does not matter.

    Returns:
        The error, its square before the root is taken, and an interval.

    Raises:
        UsageError: numbers that differ, or fewer than one bin.
        NotMeasuredError: fewer than two examples, or a confidence that is no probability.

    Source: Kumar, Liang & Ma, "Verified uncertainty calibration", NeurIPS 2019, with the sample
    variance of ``r_i`` for that of the labels; so Lee, Huang, Hassani & Dobriban, "T-Cal",
    JMLR 24, 2023.

    >>> calibration_error(np.full(40, 0.9), np.arange(40) % 2).value > 0.3
    True
    """
    given, right = _checked(confidence, correct)
    if bins < 1:
        raise UsageError(f"a calibration error needs at least one bin, not {bins}")
    n = len(given)
    # Sorted, so that resamples do not depend on the order of the examples.
    order = np.lexsort((right, given))
    given, right = given[order], right[order]
    most = max(1, min(bins, n // _FEWEST))
    inner = np.quantile(given, np.arange(1, most) / most, method="inverted_cdf")
    place = np.searchsorted(np.unique(inner), given, side="left")
    _, place = np.unique(place, return_inverse=True)
    member = np.eye(int(place.max()) + 1)[place]
    apart = right - given
    columns = np.concatenate([member, member * apart[:, None], member * apart[:, None] ** 2], 1)
    squared, plug_in = (float(one[0]) for one in _errors(columns.sum(0)[None]))
    draw = np.random.default_rng(seed)
    resampled = []
    rows = max(1, _TOGETHER // n)
    for start in range(0, _RESAMPLES, rows):
        size = min(rows, _RESAMPLES - start)
        times = draw.multinomial(n, np.full(n, 1 / n), size)
        resampled.append(_errors(times @ columns)[0])
    reach = NormalDist().inv_cdf((1 + level) / 2) * float(np.concatenate(resampled).std(ddof=1))
    value = math.sqrt(max(0.0, squared))
    low, high = (math.sqrt(max(0.0, squared + side * reach)) for side in (-1, 1))
    below, above = _reach_of_gap(float(given.mean()), int(right.sum()), n, level)
    low, high = max(0.0, min(low, value - below)), min(1.0, max(high, value + above))
    counts, means, hits = member.sum(0), given @ member / member.sum(0), right @ member
    return CalibrationError(
        value=value,
        squared=squared,
        interval=Interval(low=low, high=high, level=level, method=_METHOD),
        plug_in=plug_in,
        bins=tuple(
            Bin(int(count), float(middle), round(float(hit)))
            for count, middle, hit in zip(counts, means, hits, strict=True)
        ),
    )


def equal_width_ece(confidence: NDArray[Any], correct: NDArray[Any], *, bins: int = BINS) -> float:
    """``sum_b n_b / n |accuracy_b - confidence_b|`` over bins ``(b / B, (b + 1) / B]``.

    The plain expected calibration error of most papers. It is above zero for calibrated confidences
    and the more so the fewer examples there are.

    Args:
        confidence: ``(n,)`` probabilities of the predicted classes.
        correct: ``(n,)`` whether each prediction is right.
        bins: ``B``.

    Returns:
        The error, from 0 to 1.

    Source: Guo, Pleiss, Sun & Weinberger, "On calibration of modern neural networks", ICML 2017,
    Eq. 3.

    >>> equal_width_ece(np.array([0.9, 0.9]), np.array([True, False])) == 0.4
    True
    """
    given, right = _checked(confidence, correct)
    place = np.clip(np.ceil(given * bins).astype(int) - 1, 0, bins - 1)
    return float(np.abs(np.bincount(place, right - given)).sum() / len(given))


def brier_scores(probabilities: NDArray[Any], labels: NDArray[Any]) -> Array:
    """``sum_k (p_k - [k = y])^2`` of each example, ``(n,)``, from 0 to 2.

    Args:
        probabilities: ``(n, k)``.
        labels: ``(n,)`` from 0.

    Returns:
        One score an example.

    Source: Brier, "Verification of forecasts expressed in terms of probability", 1950.

    >>> brier_scores(np.array([[0.5, 0.5], [1.0, 0.0]]), np.array([0, 1])).tolist()
    [0.5, 2.0]
    """
    given = np.asarray(probabilities, np.float64)
    own = np.arange(given.shape[1]) == np.asarray(labels)[:, None]
    return np.asarray(((given - own) ** 2).sum(1), np.float64)


def _errors(columns: Array) -> tuple[Array, Array]:
    """Debiased square and plug-in of rows of counts, sums of ``r`` and sums of ``r^2`` by bin."""
    count, total, squares = np.split(columns, 3, axis=1)
    weight = count / count.sum(1, keepdims=True)
    # A bin of one example, which resamples can have, has no pairs.
    pairs = np.where(count > 1, (total**2 - squares) / np.maximum(count * (count - 1), 1), 0)
    gaps = np.abs(total) / np.maximum(count, 1)
    return (weight * pairs).sum(1), (weight * gaps).sum(1)


def _reach_of_gap(confidence: float, correct: int, n: int, level: float) -> tuple[float, float]:
    """How far the interval of ``|accuracy - confidence|`` reaches below and above its estimate."""
    accuracy = clopper_pearson(correct, n, level)
    gap = abs(correct / n - confidence)
    ends = abs(accuracy.low - confidence), abs(accuracy.high - confidence)
    inside = accuracy.low <= confidence <= accuracy.high
    return gap - (0.0 if inside else min(ends)), max(ends) - gap


def _checked(confidence: NDArray[Any], correct: NDArray[Any]) -> tuple[Array, Array]:
    given = np.asarray(confidence, np.float64).ravel()
    right = np.asarray(correct, np.float64).ravel()
    if len(given) != len(right):
        raise UsageError(f"{len(given)} confidences for {len(right)} examples")
    if len(given) < 2:
        raise NotMeasuredError("a calibration error needs at least two examples")
    if not ((given >= 0) & (given <= 1)).all():
        raise NotMeasuredError("confidences that are no probabilities")
    return given, right
