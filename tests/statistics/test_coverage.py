"""How often the approximate intervals hold the truth: by enumeration, or in simulation.

The exact ones are held to their level where they are tested; these come near it. A simulated share
of 400 strays by 1.1 points (one standard error), the bounds leave three of them.
"""

import numpy as np
import pytest
from scipy.stats import binom

from robaudit.statistics import mean, newcombe, normal_interval, paired, t_interval
from robaudit.statistics.correlations import correlation


@pytest.mark.parametrize(("n_a", "n_b"), [(25, 25), (20, 35)])
def test_newcombe_over_independent_proportions(n_a, n_b):
    """Exactly, from the probabilities of all outcomes."""
    ends = np.array(
        [
            [(i.low, i.high) for b in range(n_b + 1) for i in [newcombe(a, n_a, b, n_b)]]
            for a in range(n_a + 1)
        ]
    )
    covered = []
    for p in np.linspace(0.05, 0.95, 13):
        for q in np.linspace(0.05, 0.95, 13):
            holds = (ends[..., 0] <= p - q) & (p - q <= ends[..., 1])
            masses = binom.pmf(np.arange(n_a + 1), n_a, p), binom.pmf(np.arange(n_b + 1), n_b, q)
            covered.append(masses[0] @ holds @ masses[1])
    assert np.mean(covered) == pytest.approx(0.95, abs=0.015)
    assert min(covered) > 0.88


def test_normal_interval_of_a_mean_of_losses():
    """Losses are skewed: exponential ones of 300 examples."""
    draw = np.random.default_rng(0)
    hits = 0
    for _ in range(400):
        found = mean(draw.exponential(size=300))
        interval = normal_interval(found.value, found.standard_error)
        hits += interval.low <= 1 <= interval.high
    assert hits / 400 == pytest.approx(0.945, abs=0.033)


@pytest.mark.slow
def test_bootstrap_of_correlations():
    """Forty models, two quantities with a correlation of one half."""
    draw, truth = np.random.default_rng(1), 0.5
    hits = {"pearson": 0, "kendall": 0}
    at = {"pearson": truth, "kendall": 2 / np.pi * np.arcsin(truth)}  # of a bivariate normal
    for _ in range(200):
        x, noise = draw.standard_normal((2, 40))
        found = correlation(x, truth * x + (1 - truth**2) ** 0.5 * noise)
        for name in hits:
            interval = getattr(found, name).interval
            hits[name] += interval.low <= at[name] <= interval.high
    for name, count in hits.items():
        assert 0.88 <= count / 200 <= 0.99, name


@pytest.mark.slow
@pytest.mark.parametrize("n", [8, 15])
def test_pearsons_interval_of_few_models(n):
    """Percentiles alone hold the truth in 88 to 93 of 100 such samples."""
    draw, truth, hits = np.random.default_rng(n), 0.9, 0
    for _ in range(400):
        x, noise = draw.standard_normal((2, n))
        interval = correlation(x, truth * x + (1 - truth**2) ** 0.5 * noise).pearson.interval
        hits += interval.low <= truth <= interval.high
    assert hits / 400 > 0.95 - 3 * 0.0109


@pytest.mark.parametrize("draws", [2, 5, 20])
def test_t_interval_of_the_mean_of_few_draws(draws):
    """Normal draws: exactly its level, where normal quantiles hold 70, 88 and 94 %."""
    draw, hits = np.random.default_rng(draws), 0
    for _ in range(2000):
        found = mean(draw.standard_normal(draws))
        interval = t_interval(found.value, found.standard_error, draws - 1)
        hits += interval.low <= 0 <= interval.high
    assert hits / 2000 == pytest.approx(0.95, abs=3 * 0.005)


def test_paired_difference_of_accuracies():
    """A tenth of the examples change one way, a twentieth the other."""
    draw, hits = np.random.default_rng(2), 0
    for _ in range(400):
        both, first, second, neither = draw.multinomial(200, [0.6, 0.05, 0.1, 0.25])
        interval = paired(both, first, second, neither).interval
        hits += interval.low <= 0.05 <= interval.high
    assert hits / 400 == pytest.approx(0.95, abs=0.033)


@pytest.mark.parametrize("groups", [8, pytest.param(16, marks=pytest.mark.slow)])
def test_intervals_of_grouped_models(groups, monkeypatch):
    """Three models a group that share nine tenths of their variance, as seeds of one recipe.

    As if the models were independent, percentiles hold the truth in about three of four samples.
    """
    monkeypatch.setattr("robaudit.statistics.correlations._RESAMPLES", 500)
    draw, truth = np.random.default_rng(groups), 0.7
    at = {"spearman": 6 / np.pi * np.arcsin(truth / 2), "kendall": 2 / np.pi * np.arcsin(truth)}
    of = np.repeat(np.arange(groups), 3).tolist()
    hits, naive = dict.fromkeys(at, 0), 0

    def both(n):
        x, noise = draw.standard_normal((2, n))
        return np.stack([x, truth * x + (1 - truth**2) ** 0.5 * noise])

    for _ in range(100):
        x, y = 0.9**0.5 * np.repeat(both(groups), 3, 1) + 0.1**0.5 * both(3 * groups)
        found = correlation(x, y, groups=of)
        for name in at:
            interval = getattr(found, name).interval
            hits[name] += interval.low <= at[name] <= interval.high
        interval = correlation(x, y).kendall.interval
        naive += interval.low <= at["kendall"] <= interval.high
    assert min(hits.values()) >= 86  # three standard errors below 93
    assert naive < min(hits.values()) - 5
