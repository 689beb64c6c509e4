"""Error bars of grouped examples: copies are worth one, strangers are independent, and coverage."""

import itertools

import numpy as np
import pytest

from robaudit.errors import NotMeasuredError, UsageError
from robaudit.statistics import (
    clopper_pearson,
    clustered_accuracy,
    clustered_difference,
    clustered_mean,
    clustered_paired,
    effective_size,
    mean,
    newcombe,
    paired,
    wilson,
)


def ends(interval):
    return interval.low, interval.high


@pytest.mark.parametrize("copies", [1, 2, 25])
def test_copies_of_each_example_are_worth_one(copies):
    draw = np.random.default_rng(0)
    right, other = draw.random(60) < 0.7, draw.random(60) < 0.6
    groups = np.repeat(np.arange(60), copies)[draw.permutation(60 * copies)]
    a, b = right[groups], other[groups]
    k, m = int(right.sum()), int(other.sum())
    assert effective_size(a, groups) == pytest.approx(60)
    assert ends(clustered_accuracy(a, groups)) == pytest.approx(ends(clopper_pearson(k, 60)))
    assert ends(clustered_difference(a, groups, b, groups)) == pytest.approx(
        ends(newcombe(k, 60, m, 60))
    )
    alone, together = mean(right), clustered_mean(a, groups)
    assert together.value == pytest.approx(alone.value)
    assert together.standard_error == pytest.approx(alone.standard_error)
    cells = [int((x & y).sum()) for x, y in ((right, other), (right, ~other), (~right, other),
                                             (~right, ~other))]  # fmt: skip
    one, many = paired(*cells), clustered_paired(a, b, groups)
    assert many.p_value == pytest.approx(one.p_value)
    assert many.difference == pytest.approx(one.difference)
    assert ends(many.interval) == pytest.approx(ends(one.interval))
    assert (many.n, many.only_first) == (60 * copies, copies * one.only_first)


def test_in_groups_that_say_nothing_of_each_other_nothing_changes_much():
    draw = np.random.default_rng(1)
    right, groups = draw.random(4000) < 0.7, np.arange(4000) // 2
    assert effective_size(right, groups) == pytest.approx(4000, rel=0.1)


def test_where_all_are_right_the_groups_are_what_there_is():
    assert ends(clustered_accuracy([True] * 40, np.arange(40) // 4)) == ends(
        clopper_pearson(10, 10)
    )
    assert effective_size([1.0, 1.0], [3, 3]) == 1


def test_the_paired_test_counts_every_sign():
    first = np.array([1, 1, 1, 0, 0, 1, 1, 0], bool)
    second = np.array([0, 0, 1, 1, 0, 0, 1, 1], bool)
    groups = [0, 0, 0, 1, 1, 2, 2, 3]
    sums = [-2, 1, -1, 1]
    signs = list(itertools.product((-1, 1), repeat=4))
    far = [abs(np.dot(one, sums)) >= abs(sum(sums)) for one in signs]
    assert clustered_paired(first, second, groups).p_value == pytest.approx(np.mean(far))
    same = clustered_paired(first, first, groups)
    assert (same.p_value, same.difference) == (1.0, 0.0)
    # As wide as four independent examples without a difference, not as eight.
    assert same.interval.high > paired(5, 0, 0, 3).interval.high
    assert wilson(1, 2).method == "wilson"


@pytest.mark.parametrize("alike", [0.3, 1.0])
def test_intervals_of_grouped_accuracies_hold_the_truth(alike):
    """Forty images, ten copies each, of which a share follows the image; truth 0.8.

    Clopper and Pearson's interval of 400 held it in 66 % where all copies are alike.
    """
    draw, hits, naive = np.random.default_rng(2), 0, 0
    groups = np.repeat(np.arange(40), 10)
    for _ in range(1000):
        own, image = draw.random(400) < 0.8, (draw.random(40) < 0.8)[groups]
        right = np.where(draw.random(400) < alike, image, own)
        for interval, count in ((clustered_accuracy(right, groups), 1), (None, 0)):
            found = interval or clopper_pearson(int(right.sum()), 400)
            held = found.low <= 0.8 <= found.high
            hits, naive = hits + count * held, naive + (1 - count) * held
    assert hits / 1000 >= 0.95 - 3 * 0.007
    assert naive / 1000 < 0.93


def test_what_is_no_grouping_is_refused():
    with pytest.raises(UsageError, match="2 groups for 3"):
        clustered_mean([1, 2, 3], [0, 1])
    with pytest.raises(NotMeasuredError):
        clustered_mean([], [])
    assert clustered_mean([1.0, 3.0], [5, 5]).standard_error is None
