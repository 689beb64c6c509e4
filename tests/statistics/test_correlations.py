import inspect

import numpy as np
import pytest
from scipy import stats

from robaudit.statistics import weighted
from robaudit.statistics.correlations import correlation

# SciPy 1.15 renamed it.
SEED = "rng" if "rng" in inspect.signature(stats.bootstrap).parameters else "random_state"


@pytest.mark.parametrize("seed", range(4))
def test_coefficients_are_scipys(seed):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=15).round(1)  # with ties
    y = x + rng.normal(size=15)
    found = correlation(x.tolist(), y.tolist())
    assert found.pearson.value == pytest.approx(stats.pearsonr(x, y).statistic, abs=1e-12)
    assert found.spearman.value == pytest.approx(stats.spearmanr(x, y).statistic, abs=1e-12)
    assert found.kendall.value == pytest.approx(stats.kendalltau(x, y).statistic, abs=1e-12)


@pytest.mark.parametrize(
    ("name", "of"),
    [("pearson", stats.pearsonr), ("spearman", stats.spearmanr), ("kendall", stats.kendalltau)],
)
def test_the_interval_is_scipys_bootstrap_up_to_its_own_noise(name, of):
    rng = np.random.default_rng(7)
    x = rng.normal(size=40).round(1)  # with ties
    y = x + rng.normal(size=40)
    found = getattr(correlation(x.tolist(), y.tolist()), name).interval
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
    assert a.spearman.value == b.spearman.value == a.kendall.value == b.kendall.value == 1.0
    assert a.spearman.interval.low == pytest.approx(1.0)
    assert a.pearson.value != b.pearson.value


def test_what_has_no_correlation():
    assert correlation([1, 2], [1, 2]) is None
    assert correlation([1, 1, 1], [1, 2, 3]) is None
    assert correlation([1, 2, 3, 4], [1, 2, 3, 5]).pearson.interval is None
    with pytest.raises(ValueError, match="3 values and 2"):
        correlation([1, 2, 3], [1, 2])


def drawn(n, seed=0, ties=True):
    rng = np.random.default_rng(seed)
    z = rng.normal(size=n)
    x, y = z + rng.normal(size=n), z + rng.normal(size=n)
    return (x.round(1), y.round(1), z.round(1)) if ties else (x, y, z)


@pytest.mark.parametrize(
    ("statistic", "of"),
    [
        (weighted.pearson, stats.pearsonr),
        (weighted.spearman, stats.spearmanr),
        (weighted.kendall, stats.kendalltau),
    ],
)
def test_a_coefficient_of_counted_points_is_that_of_the_points_written_out(statistic, of):
    x, y, _ = drawn(12)
    w = np.random.default_rng(1).integers(0, 4, (20, 12)).astype(float)
    found = statistic(x, y, w)
    for value, often in zip(found, w.astype(int), strict=True):
        theirs = of(np.repeat(x, often), np.repeat(y, often)).statistic
        assert value == pytest.approx(theirs, abs=1e-12)


def test_a_resample_in_which_a_quantity_is_constant_has_no_coefficient():
    x, y = np.array([0.1, 0.1, 0.1, 0.7]), np.array([1.0, 2.0, 4.0, 3.0])
    w = np.array([[1.0, 2.0, 1.0, 0.0], [1.0, 1.0, 1.0, 1.0]])
    for statistic in (weighted.pearson, weighted.spearman, weighted.kendall):
        assert np.isnan(statistic(x, y, w)).tolist() == [True, False]


def test_a_partial_coefficient_is_that_of_what_regression_on_ranks_leaves():
    x, y, z = drawn(25)
    ranks = [stats.rankdata(q) for q in (x, y, z)]
    design = np.stack([np.ones(25), ranks[2]], 1)
    left = [r - design @ np.linalg.lstsq(design, r, rcond=None)[0] for r in ranks[:2]]
    found = correlation(x, y, given=z)
    assert found.partial.value == pytest.approx(stats.pearsonr(*left).statistic, abs=1e-12)
    assert found.partial.interval.low < found.partial.value < found.partial.interval.high
    assert correlation(x, y, given=x).partial is None  # nothing of x is left
    assert correlation(x, y, given=np.ones(25)).partial is None


def test_what_is_left_where_a_third_quantity_explains_both():
    """Of two quantities that are one plus noise of their own, nothing is left but chance."""
    x, y, z = drawn(1500, ties=False)
    w = np.ones((1, 1500))
    assert weighted.spearman(x, y, w)[0] > 0.4
    assert abs(weighted.partial_spearman(x, y, z, w)[0]) < 0.08


def granulated_by_hand(x, y, rows, names):
    """Jiang et al., Eq. 3 to 5, with loops over every pair of models."""
    means = []
    for name in names:
        sets = {}
        for k, row in enumerate(rows):
            sets.setdefault(tuple(row[other] for other in names if other != name), []).append(k)
        taus = []
        for own in sets.values():
            signs = [
                np.sign(x[i] - x[j]) * np.sign(y[i] - y[j]) for i in own for j in own if i != j
            ]
            taus.append(sum(signs) / (len(own) * (len(own) - 1)))
        means.append((sum(taus) / len(taus), list(sets.values())))
    return sum(mean for mean, _ in means) / len(means), [sets for _, sets in means]


def test_the_granulated_coefficient_is_jiangs():
    rows = [{"width": a, "rate": b, "decay": c} for a in range(3) for b in range(2) for c in "uv"]
    x, y, _ = drawn(12)
    expected, sets = granulated_by_hand(x, y, rows, ("width", "rate", "decay"))
    found = correlation(x, y, sets=sets)
    assert found.granulated.value == pytest.approx(expected, abs=1e-12)
    assert found.granulated.interval.low <= expected <= found.granulated.interval.high


def test_a_confounded_measure_has_no_granulated_coefficient():
    """Both follow the width; within a width, one falls where the other rises."""
    width, rate = np.repeat([0.0, 1.0, 2.0], 4), np.tile([0.0, 1.0, 2.0, 3.0], 3)
    x, y = width + 0.1 * rate, width - 0.1 * rate
    found = correlation(x, y, sets=[[list(range(4)), list(range(4, 8)), list(range(8, 12))]])
    assert found.spearman.value > 0.5
    assert found.granulated.value == -1


def test_leaving_out_one_model_gives_the_range_and_names_the_model():
    x, y, _ = drawn(9)
    x[4], y[4] = 9.0, -9.0
    found = correlation(x, y).spearman
    left = [stats.spearmanr(np.delete(x, k), np.delete(y, k)).statistic for k in range(9)]
    assert found.without == pytest.approx((min(left), max(left)), abs=1e-12)
    assert found.influential == 4


def test_groups_are_resampled_as_a_whole():
    """Copies of each model change no interval when each model and its copy are one group."""
    x, y, _ = drawn(15)
    alone = correlation(x, y)
    twice = correlation(np.repeat(x, 2), np.repeat(y, 2), groups=np.repeat(np.arange(15), 2))
    assert (twice.n, twice.groups) == (30, 15)
    for name in ("pearson", "spearman", "kendall"):
        a, b = getattr(alone, name), getattr(twice, name)
        assert a.value == pytest.approx(b.value, abs=1e-12)
        assert (a.interval.low, a.interval.high) == pytest.approx(
            (b.interval.low, b.interval.high), abs=1e-9
        )
    assert twice.spearman.interval.method == "bootstrap over groups of models"
    assert correlation(x, y, groups=["a", "b", "c", "d"] + ["e"] * 11).spearman.interval is not None
    assert correlation(x, y, groups=["a", "b", "c"] + ["e"] * 12).spearman.interval is None
