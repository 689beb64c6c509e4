"""Paired differences against published intervals, scipy and simulated coverage."""

import numpy as np
import pytest
from scipy.stats import binomtest

from robaudit.errors import UsageError
from robaudit.statistics import paired


def test_a_published_interval():
    """Newcombe 1998, method 10, on 36, 12, 2 and 0: 0.0569 to 0.3404 (first minus second)."""
    found = paired(36, 12, 2, 0)
    assert found.difference == pytest.approx(-0.2)
    assert (-found.interval.high, -found.interval.low) == pytest.approx((0.0569, 0.3404), abs=5e-5)


@pytest.mark.parametrize(("one", "other"), [(0, 0), (3, 3), (4, 12), (0, 9), (120, 90)])
def test_the_exact_test_is_the_binomial_one(one, other):
    found = paired(50, one, other, 7).p_value
    want = binomtest(one, one + other).pvalue if one + other else 1.0
    assert found == pytest.approx(want)


@pytest.mark.parametrize("rates", [(0.5, 0.1, 0.1, 0.3), (0.8, 0.15, 0.04, 0.01)])
def test_coverage_is_near_the_level(rates):
    """3000 tables of 80 examples: three binomial deviations are 0.012."""
    draw = np.random.default_rng(1)
    truth = rates[2] - rates[1]
    covered = 0
    for table in draw.multinomial(80, rates, size=3000):
        interval = paired(*map(int, table)).interval
        covered += interval.low <= truth <= interval.high
    assert 0.93 <= covered / 3000 <= 0.985


def test_alike_outcomes_narrow_the_interval():
    """The same accuracies, 90 and 90 of 100, agreeing or not."""
    together, apart = paired(90, 0, 0, 10), paired(80, 10, 10, 0)
    assert together.interval.high < apart.interval.high
    assert together.interval.low <= 0 <= together.interval.high


@pytest.mark.parametrize("counts", [(0, 0, 0, 0), (1, -1, 2, 3)])
def test_no_counts_are_refused(counts):
    with pytest.raises(UsageError):
        paired(*counts)
