"""Confidence at any time: simulated coverage, enumeration, and the end of the population."""

from fractions import Fraction
from math import comb

import numpy as np
import pytest

from robaudit.errors import UsageError
from robaudit.statistics import Counts, population_counts


@pytest.mark.parametrize("truth", [0, 3, 30, 57, 60])
def test_the_truth_is_covered_at_all_times_together(truth):
    """600 orders of a population of 60: at most 10 % may ever miss; three deviations are 0.037."""
    draw = np.random.default_rng(truth)
    population = np.arange(60) < truth
    missed = 0
    for _ in range(600):
        seen = np.cumsum(draw.permutation(population))
        found = (population_counts(int(s), t + 1, 60, 0.1) for t, s in enumerate(seen))
        missed += not all(counts.low <= truth <= counts.high for counts in found)
    assert missed / 600 <= 0.1 + 0.037


def test_the_ratio_is_that_of_prior_and_posterior_by_enumeration():
    """A uniform prior on counts, in exact fractions: 4 successes in 7 draws from 12."""
    likelihood = {m: Fraction(comb(m, 4) * comb(12 - m, 3), comb(12, 7)) for m in range(13)}
    total = sum(likelihood.values())
    kept = [m for m, value in likelihood.items() if value and total / value / 13 < 20]
    assert population_counts(4, 7, 12, 0.05) == Counts(min(kept), max(kept), 12)


def test_everything_drawn_leaves_nothing_open():
    assert population_counts(17, 40, 40) == Counts(17, 17, 40)
    assert population_counts(0, 0, 10) == Counts(0, 10, 10)


def test_more_draws_leave_less_open_and_less_alpha_more():
    widths = [
        counts.high - counts.low
        for counts in (population_counts(9 * n // 10, n, 10_000) for n in (100, 1000, 9000))
    ]
    assert widths == sorted(widths, reverse=True)
    strict = population_counts(90, 100, 10_000, 0.001)
    assert strict.high - strict.low > widths[0]


@pytest.mark.parametrize(
    "words", [(5, 4, 10), (-1, 4, 10), (1, 11, 10), (0, 0, 0), (1, 2, 10, 0.0), (1, 2, 10, 1.0),
              (1, 2, 10, 0.05, (0.0, 1.0))],
)  # fmt: skip
def test_what_cannot_be_is_refused(words):
    with pytest.raises(UsageError):
        population_counts(*words)
