"""Calibration error and Brier score against loops over pairs, and against simulated truth."""

import itertools

import numpy as np
import pytest

from robaudit.errors import NotMeasuredError, UsageError
from robaudit.statistics import brier_scores, calibration, calibration_error, equal_width_ece


def source(draw, n, too_sure=0.0):
    """Confidences, and whether each is right: less often than it says by ``too_sure``."""
    confidence = draw.beta(8, 3, n)
    right = draw.random(n) < confidence - np.minimum(too_sure, confidence)
    return confidence, right


def truth(too_sure):
    """The mean over bins of the squared error, for ``source``: bins hardly matter."""
    many = np.random.default_rng(9).beta(8, 3, 200_000)
    return float((np.minimum(too_sure, many) ** 2).mean())


@pytest.fixture
def few_resamples(monkeypatch):
    monkeypatch.setattr(calibration, "_RESAMPLES", 60)


def pairs_by_hand(confidence, right, bins):
    """Sorted into slices of equal size; in each the mean of ``r_i r_j`` over ordered pairs."""
    order = sorted(range(len(confidence)), key=lambda at: confidence[at])
    size = len(order) // bins
    total = plug_in = 0.0
    for start in range(0, len(order), size):
        rows = order[start : start + size]
        apart = [float(right[at]) - confidence[at] for at in rows]
        products = [a * b for a, b in itertools.permutations(apart, 2)]
        total += len(rows) / len(order) * sum(products) / len(products)
        plug_in += abs(sum(apart)) / len(order)
    return total, plug_in


@pytest.mark.parametrize("too_sure", [0.0, 0.3])
def test_the_square_is_the_mean_over_pairs_of_a_bin(too_sure):
    """150 different confidences in 15 bins: ten each."""
    confidence, right = source(np.random.default_rng(1), 150, too_sure)
    found = calibration_error(confidence, right)
    squared, plug_in = pairs_by_hand(confidence, right, 15)
    assert found.squared == pytest.approx(squared, abs=1e-12)
    assert found.plug_in == pytest.approx(plug_in, abs=1e-12)
    assert found.value == pytest.approx(max(0.0, squared) ** 0.5)
    assert [one.n for one in found.bins] == [10] * 15
    for one, at in zip(found.bins, np.sort(confidence).reshape(15, 10), strict=True):
        assert one.confidence == pytest.approx(at.mean())
    assert sum(one.correct for one in found.bins) == right.sum()


@pytest.mark.parametrize("too_sure", [0.0, 0.1, 0.3])
def test_the_square_is_unbiased(too_sure, few_resamples):
    """Also where the plug-in is far off: 0.09 for calibrated confidences."""
    draw = np.random.default_rng(2)
    found = [calibration_error(*source(draw, 200, too_sure)) for _ in range(400)]
    squares = np.array([one.squared for one in found])
    error = squares.std() / len(squares) ** 0.5
    # Four standard errors; that errors differ within a bin adds less than one part in a hundred.
    assert squares.mean() == pytest.approx(truth(too_sure), abs=4 * error, rel=0.01)
    if too_sure == 0:
        assert np.mean([one.plug_in for one in found]) > 0.07


@pytest.mark.parametrize("too_sure", [0.0, 0.05, 0.2])
def test_intervals_cover(too_sure, few_resamples):
    """300 samples: three binomial deviations below 0.95 are 0.91."""
    draw, true = np.random.default_rng(3), truth(too_sure) ** 0.5
    covered = 0
    for seed in range(300):
        interval = calibration_error(*source(draw, 400, too_sure), seed=seed).interval
        covered += interval.low <= true <= interval.high
    assert covered / 300 >= 0.91


def test_the_order_of_examples_does_not_matter():
    confidence, right = source(np.random.default_rng(4), 203)
    confidence = confidence.round(2)
    order = np.random.default_rng(5).permutation(203)
    assert calibration_error(confidence, right) == calibration_error(
        confidence[order], right[order]
    )


def test_equal_confidences_share_a_bin():
    """In bins of equal size the wrong ones of a saturated network could fill one of their own."""
    confidence = np.ones(400)
    right = np.arange(400) % 10 != 0
    found = calibration_error(confidence, right)
    assert len(found.bins) == 1
    assert found.value == pytest.approx(0.1, abs=0.005)
    assert found.interval.low < 0.1 < found.interval.high


def test_fifty_right_of_fifty_are_no_proof_of_perfection():
    """The accuracy may be 0.025 ^ (1 / 50), and the error what that lacks; so at the other end."""
    found = calibration_error(np.ones(50), np.ones(50, bool))
    assert (found.value, found.interval.low) == (0, 0)
    assert found.interval.high == pytest.approx(1 - 0.025 ** (1 / 50))
    wrong = calibration_error(np.ones(50), np.zeros(50, bool))
    assert (wrong.value, wrong.interval.high) == (1, 1)
    assert wrong.interval.low == pytest.approx(0.025 ** (1 / 50))


def test_intervals_of_saturated_networks_cover(few_resamples):
    """In 13 of 100 samples no example is wrong, and resamples alone would end at zero."""
    draw = np.random.default_rng(7)
    covered = 0
    for _ in range(400):
        interval = calibration_error(np.ones(100), draw.random(100) < 0.98).interval
        covered += interval.low <= 0.02 <= interval.high
    assert covered / 400 >= 0.92  # three binomial deviations below 0.95


def test_the_plain_error_is_that_of_equal_widths():
    draw = np.random.default_rng(6)
    confidence, right = source(draw, 500)
    confidence[:3] = [0.2, 1.0, 1 / 15]  # on the edges of bins
    total = 0.0
    for at in range(15):
        inside = (confidence > at / 15) & (confidence <= (at + 1) / 15)
        if inside.any():
            total += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    assert equal_width_ece(confidence, right) == pytest.approx(total)


def test_brier_scores_by_hand():
    found = brier_scores(np.array([[0.7, 0.2, 0.1], [0.0, 1.0, 0.0]]), np.array([0, 2]))
    assert found.tolist() == pytest.approx([0.09 + 0.04 + 0.01, 2.0])


def test_what_is_no_probability_is_refused():
    with pytest.raises(NotMeasuredError):
        calibration_error(np.array([0.5, np.nan]), np.array([True, False]))
    with pytest.raises(NotMeasuredError):
        calibration_error(np.array([0.5]), np.array([True]))
    with pytest.raises(UsageError):
        calibration_error(np.array([0.5, 0.5]), np.array([True]))
    with pytest.raises(UsageError):
        calibration_error(np.array([0.5, 0.5]), np.array([True, True]), bins=0)
