import inspect

import numpy as np
import pytest
from scipy import stats

from robaudit.statistics.correlations import correlation

# SciPy 1.15 renamed it.
SEED = "rng" if "rng" in inspect.signature(stats.bootstrap).parameters else "random_state"


@pytest.mark.parametrize("seed", range(4))
def test_coefficients_are_scipys(seed):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=15).round(1)  # with ties
    y = x + rng.normal(size=15)
    found = correlation(x.tolist(), y.tolist())
    assert found.pearson == pytest.approx(stats.pearsonr(x, y).statistic, abs=1e-12)
    assert found.spearman == pytest.approx(stats.spearmanr(x, y).statistic, abs=1e-12)
    assert found.kendall == pytest.approx(stats.kendalltau(x, y).statistic, abs=1e-12)


@pytest.mark.parametrize(
    ("name", "of"),
    [("pearson", stats.pearsonr), ("spearman", stats.spearmanr), ("kendall", stats.kendalltau)],
)
def test_the_interval_is_scipys_bootstrap_up_to_its_own_noise(name, of):
    rng = np.random.default_rng(7)
    x = rng.normal(size=40).round(1)  # with ties
    y = x + rng.normal(size=40)
    found = getattr(correlation(x.tolist(), y.tolist()), f"{name}_interval")
    theirs = stats.bootstrap(
        (x, y), lambda a, b: of(a, b).statistic, paired=True, method="percentile",
        vectorized=False, n_resamples=2000, **{SEED: 1},
    ).confidence_interval  # fmt: skip
    low, high, method = theirs.low, theirs.high, "bootstrap over models"
    if name == "pearson":
        fisher = stats.pearsonr(x, y).confidence_interval(0.95)
        low, high = min(low, fisher.low), max(high, fisher.high)
        assert found.low <= fisher.low + 1e-12
        assert found.high >= fisher.high - 1e-12
        method += " and Fisher's z, the wider"
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.03)
    assert found.method == method


def test_a_rank_correlation_stays_under_monotone_maps():
    x = [0.1, 0.4, 0.2, 0.9, 0.5, 0.3]
    y = [1.0, 3.0, 2.0, 9.0, 4.0, 2.5]
    a = correlation(x, y)
    b = correlation(np.exp(x).tolist(), [v**3 for v in y])
    assert a.spearman == b.spearman == a.kendall == b.kendall == 1.0
    assert a.spearman_interval.low == pytest.approx(1.0)
    assert a.pearson != b.pearson


def test_what_has_no_correlation():
    assert correlation([1, 2], [1, 2]) is None
    assert correlation([1, 1, 1], [1, 2, 3]) is None
    assert correlation([1, 2, 3, 4], [1, 2, 3, 5]).pearson_interval is None
    with pytest.raises(ValueError, match="3 values and 2"):
        correlation([1, 2, 3], [1, 2])
