"""Quantiles against numpy, counted ranks and simulated coverage."""

import math

import numpy as np
import pytest

from robaudit.errors import NotMeasuredError, UsageError
from robaudit.statistics import median_interval, quantile_interval


@pytest.mark.parametrize("n", [1, 2, 7, 30])
def test_the_median_is_numpy_s(n):
    sample = np.random.default_rng(n).normal(size=n)
    assert median_interval(sample)[0] == pytest.approx(np.median(sample))


@pytest.mark.parametrize("n", [6, 20, 101])
def test_coverage_is_at_least_the_level_and_not_much_more(n):
    """4000 samples: three binomial deviations are 0.01; the order statistics are coarse."""
    draw = np.random.default_rng(0)
    covered = 0
    for _ in range(4000):
        interval = median_interval(draw.exponential(size=n))[1]
        covered += interval.low <= np.log(2) <= interval.high
    assert 0.94 <= covered / 4000 <= 0.985


def test_a_tighter_pair_would_not_cover():
    """n = 9: ranks 2 and 8 cover with 1 - 2 * 10 / 512, ranks 3 and 7 with 1 - 2 * 46 / 512."""
    interval = median_interval(np.arange(1.0, 10.0))[1]
    assert (interval.low, interval.high) == (2, 8)


def test_infinite_values_have_their_place():
    assert median_interval(np.array([1, 2, np.inf])) == (2.0, None)
    assert median_interval(np.array([1, np.inf, np.inf])) == (None, None)


@pytest.mark.parametrize("sample", [[], [1, np.nan]])
def test_no_numbers_have_no_median(sample):
    with pytest.raises(NotMeasuredError):
        median_interval(np.array(sample))


@pytest.mark.parametrize("probability", [0.1, 0.37, 0.9])
@pytest.mark.parametrize("n", [1, 10, 64])
def test_a_quantile_is_numpy_s(n, probability):
    sample = np.random.default_rng(n).normal(size=n)
    want = np.quantile(sample, probability)
    assert quantile_interval(sample, probability)[0] == pytest.approx(want)


@pytest.mark.parametrize("probability", [0.1, 0.75])
@pytest.mark.parametrize("n", [40, 256])
def test_a_quantile_is_covered(n, probability):
    """2000 samples: three binomial deviations are 0.015; an end is None where a rank is lacking."""
    draw, true = np.random.default_rng(0), -math.log1p(-probability)
    covered = 0
    for _ in range(2000):
        interval = quantile_interval(draw.exponential(size=n), probability)[1]
        covered += interval is None or interval.low <= true <= interval.high
    assert 0.935 <= covered / 2000 <= 0.99


@pytest.mark.parametrize("probability", [0.1, 0.6])
def test_ranks_are_the_closest_that_cover(probability):
    """By summing the binomial distribution: a rank nearer leaves more than 2.5 % on its side."""
    n = 80
    mass = [math.comb(n, k) * probability**k * (1 - probability) ** (n - k) for k in range(n + 1)]
    interval = quantile_interval(np.arange(1.0, n + 1), probability)[1]
    low, high = int(interval.low), int(interval.high)
    assert sum(mass[:low]) <= 0.025 < sum(mass[: low + 1])
    assert sum(mass[high:]) <= 0.025 < sum(mass[high - 1 :])


def test_quantiles_mirror_each_other():
    sample = np.random.default_rng(3).normal(size=100)
    low, interval = quantile_interval(sample, 0.1)
    high, mirrored = quantile_interval(-sample, 0.9)
    assert low == pytest.approx(-high)
    assert (interval.low, interval.high) == (-mirrored.high, -mirrored.low)


def test_a_tail_of_few_values_has_no_interval():
    assert quantile_interval(np.arange(20.0), 0.1)[1] is None


@pytest.mark.parametrize("probability", [0, 1, 2])
def test_other_probabilities_are_refused(probability):
    with pytest.raises(UsageError):
        quantile_interval(np.arange(9.0), probability)
