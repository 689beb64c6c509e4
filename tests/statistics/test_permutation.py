import inspect
from itertools import permutations

import numpy as np
import pytest
from scipy import stats

from robaudit.statistics.permutation import arrangements, holm, permutation_p_value


def share(x, arranged):
    """Of the arrangements of y, of which the first is the one found, those at least as far."""
    found = [abs(stats.spearmanr(x, y).statistic) for y in arranged]
    return np.mean([one >= found[0] - 1e-9 for one in found])


@pytest.mark.parametrize("ties", [False, True])
def test_all_orders_of_few_models(ties):
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(2, 6))
    if ties:
        x, y = x.round(0), y.round(0)
    expected = share(x, [np.array(order) for order in permutations(y)])
    assert permutation_p_value(x, y) == pytest.approx(expected)


def test_drawn_orders_come_near_scipys_test():
    rng = np.random.default_rng(0)
    x = rng.normal(size=12)
    y = 0.5 * x + rng.normal(size=12)
    found = permutation_p_value(x, y)
    theirs = stats.permutation_test(
        (y,), lambda b: stats.spearmanr(x, b).statistic, permutation_type="pairings",
        n_resamples=1500, vectorized=False, **{SEED: 1},
    ).pvalue  # fmt: skip
    assert found == pytest.approx(theirs, abs=4 * np.sqrt(theirs / 1500))
    assert found == permutation_p_value(x, y)
    assert found != permutation_p_value(x, y, seed=1)


# SciPy 1.15 renamed it.
SEED = "rng" if "rng" in inspect.signature(stats.permutation_test).parameters else "random_state"


def test_whole_groups_change_places_within_strata_and_sizes():
    """Four groups of two in one stratum; what else is there has no other to change with."""
    rng = np.random.default_rng(5)
    groups = ["a", "b", "a", "c", "b", "d", "c", "d", "e", "f"]
    strata = ["s"] * 8 + ["s", "t"]
    members = [[0, 2], [1, 4], [3, 6], [5, 7]]
    x, y = rng.normal(size=(2, 10))
    arranged = []
    for order in permutations(range(4)):
        moved = y.copy()
        for to, of in zip(members, order, strict=True):
            moved[to] = y[members[of]]
        arranged.append(moved)
    assert arrangements(groups, strata) == 24
    assert permutation_p_value(x, y, groups, strata) == pytest.approx(share(x, arranged))


def test_a_trend_that_all_runs_share_is_no_finding():
    """Both rise over the epochs of every run, and runs differ in neither."""
    epochs = np.arange(10.0)
    rng = np.random.default_rng(0)
    x, y = (np.concatenate([epochs + rng.normal(0, 0.1, 10) for _ in range(6)]) for _ in range(2))
    groups = np.repeat(range(6), 10).tolist()
    assert permutation_p_value(x, y) < 0.001  # as if the epochs were independent
    assert permutation_p_value(x, y, groups) > 0.05


def test_the_level_is_kept_without_any_association():
    rng = np.random.default_rng(1)
    small = 0
    for _ in range(400):
        runs = np.repeat(rng.normal(size=(2, 7)), 3, axis=1) + 0.3 * rng.normal(size=(2, 21))
        small += permutation_p_value(*runs, np.repeat(range(7), 3).tolist()) <= 0.05
    assert small / 400 < 0.05 + 3 * (0.05 * 0.95 / 400) ** 0.5


def test_what_has_no_p_value():
    assert permutation_p_value([1, 2, 3], [1, 2, 3]) is None  # six arrangements
    assert permutation_p_value([1] * 6, range(6)) is None
    assert permutation_p_value(range(6), range(6), list("aaaaaa")) is None


def test_holms_correction_is_its_definition():
    rng = np.random.default_rng(0)
    p = rng.uniform(0, 0.1, 9).round(2)  # with ties
    found = holm(p.tolist())
    for alpha in (0.03, 0.1, 0.2, 0.5):
        rejected, order = set(), np.argsort(p, kind="stable")
        for step, at in enumerate(order):
            if p[at] > alpha / (9 - step):
                break
            rejected.add(at)
        assert {k for k in range(9) if found[k] <= alpha + 1e-12} >= rejected
        assert {k for k in range(9) if found[k] < alpha - 1e-12} <= rejected
    assert holm([None, 0.5]) == [None, 0.5]
