"""Medians against numpy and against simulated coverage."""

import numpy as np
import pytest

from robaudit.errors import NotMeasuredError
from robaudit.statistics import median_interval


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
