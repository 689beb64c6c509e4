"""Confidence at any time: simulated coverage, enumeration, and the end of the population."""

from fractions import Fraction
from math import comb

import numpy as np
import pytest

from robaudit.errors import UsageError
from robaudit.statistics import (
    Counts,
    Stratum,
    population_counts,
    settled,
    stratified_counts,
)


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


@pytest.mark.parametrize("prior", [(1.0, 1.0), (8.0, 3.0)])
def test_a_rule_is_settled_when_the_interval_leaves_no_doubt_by_enumeration(prior):
    """No alpha here makes a ratio of small integers equal to its inverse."""
    for size, alpha in ((1, 0.05), (5, 0.2987), (13, 0.0497), (20, 0.2013)):
        for draws in range(size + 1):
            for successes in range(draws + 1):
                kept = population_counts(successes, draws, size, alpha, prior)
                for least in range(size + 2):
                    wanted = True if kept.low >= least else False if kept.high < least else None
                    assert settled(successes, draws, size, least, alpha, prior) is wanted


def _kept(sizes, draws, successes, alpha):
    """Every sum of a pair of counts whose ratio is below 1 / alpha, in exact fractions."""

    def ratios(size, drawn, s):
        for m in range(s, size - (drawn - s) + 1):
            p = Fraction(comb(m, s) * comb(size - m, drawn - s), comb(size, drawn))
            yield m, 1 / (p * (drawn + 1))

    first, second = (list(ratios(*each)) for each in zip(sizes, draws, successes, strict=True))
    return [m + k for m, r in first for k, q in second if r * q < 1 / Fraction(alpha)]


@pytest.mark.parametrize(("sizes", "alpha"), [((6, 6), 0.0497), ((9, 4), 0.2013), ((3, 8), 0.4987)])
def test_two_strata_by_enumeration(sizes, alpha):
    for t1 in range(sizes[0] + 1):
        for t0 in range(0, sizes[1] + 1, 2):
            for s1 in range(t1 + 1):
                for s0 in range(t0 + 1):
                    kept = _kept(sizes, (t1, t0), (s1, s0), alpha)
                    found = stratified_counts(
                        Stratum(sizes[0], t1, s1, s1), Stratum(sizes[1], t0, s0, s0), alpha
                    )
                    assert (found.low, found.high) == (min(kept), max(kept))


def test_a_range_of_successes_keeps_what_any_of_them_keeps():
    """Here the ends are not monotone in the successes: one success keeps less than none."""
    first, second = (20, 10), (200, 20)

    def ends(ones, others):
        return stratified_counts(Stratum(*first, *ones), Stratum(*second, *others))

    singles = [ends((s, s), (k, k)) for s in range(4) for k in range(3)]
    assert singles[3].high < singles[0].high
    whole = ends((0, 3), (0, 2))
    assert whole.low == min(c.low for c in singles)
    assert whole.high == max(c.high for c in singles)


def test_two_strata_cover_at_all_times_together():
    """400 orders of 90 + 60; at most 10 % may ever miss, three deviations are 0.045."""
    draw = np.random.default_rng(1)
    strata = np.arange(150) < 90
    outcome = np.r_[np.arange(90) < 80, np.arange(60) < 5]
    missed = 0
    for _ in range(400):
        order = draw.permutation(150)
        for t in range(10, 150, 10):
            seen = order[:t]
            parts = []
            for inside in (strata, ~strata):
                mine = seen[inside[seen]]
                s = int(outcome[mine].sum())
                parts.append(Stratum(int(inside.sum()), len(mine), s, s))
            found = stratified_counts(*parts, 0.1)
            if not found.low <= 85 <= found.high:
                missed += 1
                break
    assert missed / 400 <= 0.1 + 0.045


def test_strata_of_unlike_shares_leave_less_open():
    """With independence the variance within the strata is a quarter of that of the whole here."""
    found = stratified_counts(Stratum(5000, 300, 285, 285), Stratum(5000, 300, 15, 15))
    whole = population_counts(300, 600, 10_000)
    assert found.high - found.low < 0.65 * (whole.high - whole.low)


@pytest.mark.parametrize("prior", [(1.0, 1.0), (16.0, 24.0), (1.0, 40.0), (36.0, 4.0)])
def test_more_successes_never_lower_an_end_by_enumeration(prior):
    for size, alpha in ((9, 0.0497), (16, 0.2987), (30, 0.0497)):
        for draws in range(size + 1):
            found = [population_counts(s, draws, size, alpha, prior) for s in range(draws + 1)]
            for ends in ([c.low for c in found], [c.high for c in found]):
                assert ends == sorted(ends)
