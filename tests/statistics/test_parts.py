"""Accuracies by class: counts by hand, Beta quantiles, and coverage of the smallest true share."""

import numpy as np
import pytest
from scipy.stats import beta

from robaudit.errors import NotMeasuredError, UsageError
from robaudit.statistics import clustered_accuracy, least, parts_of


def test_counts_and_intervals_by_hand():
    labels = [2, 0, 2, 2, 5, 0, 2]
    right = [True, False, False, True, True, True, True]
    found = parts_of(right, labels)
    assert [(part.label, part.n, part.count) for part in found] == [(0, 2, 1), (2, 4, 3), (5, 1, 1)]
    tail = 0.05 / 3 / 2  # three parts, two sides
    for part in found:
        k, n = part.count, part.n
        low = beta.ppf(tail, k, n - k + 1)
        high = 1.0 if k == n else beta.ppf(1 - tail, k + 1, n - k)
        assert part.interval.low == pytest.approx(low, rel=1e-9)
        assert part.interval.high == pytest.approx(high, rel=1e-9)
        assert part.interval.level == 0.95
        assert part.interval.method == "clopper-pearson, simultaneous over 3"
    worst, interval = least(found)
    assert (worst.label, worst.share) == (0, 0.5)
    # The class of one example may be worse than the worst of those seen.
    assert interval.low == min(part.interval.low for part in found) < worst.interval.low + 1e-12
    assert interval.high == min(part.interval.high for part in found) <= worst.interval.high


def test_copies_of_an_image_count_once():
    right, labels = np.array([True, False, True, True] * 5), np.repeat([0, 1], 10)
    groups = np.arange(20)
    plain, alone = parts_of(right, labels), parts_of(right, labels, groups=groups)
    twice = parts_of(np.repeat(right, 2), np.repeat(labels, 2), groups=np.repeat(groups, 2))
    for one, other, copied in zip(plain, alone, twice, strict=True):
        wanted = clustered_accuracy(right[labels == one.label], np.arange(10), 0.975)
        for found in (other, copied):
            assert found.interval.low == pytest.approx(wanted.low)
            assert found.interval.high == pytest.approx(wanted.high)
        assert one.share == other.share == copied.share


@pytest.mark.parametrize(
    ("shares", "sizes"),
    [
        ([0.5] * 10, [30] * 10),
        ([0.3, 0.5, 0.9], [60, 40, 5]),
        ([0.95] * 5, [20] * 5),
    ],
)
def test_the_interval_covers_the_smallest_true_share(shares, sizes):
    rng, runs = np.random.default_rng(0), 400
    labels = np.repeat(np.arange(len(shares)), sizes)
    covered = together = 0
    smallest = []
    for _ in range(runs):
        right = rng.random(len(labels)) < np.asarray(shares)[labels]
        found = parts_of(right, labels)
        worst, interval = least(found)
        smallest.append(worst.share)
        assert interval.low <= worst.share <= interval.high
        covered += interval.low <= min(shares) <= interval.high
        together += all(
            part.interval.low <= shares[part.label] <= part.interval.high for part in found
        )
    # 0.95 less three standard errors of 400 runs.
    assert min(covered, together) / runs >= 0.95 - 3 * (0.05 * 0.95 / runs) ** 0.5
    assert np.mean(smallest) < min(shares), "the minimum of estimates is biased downwards"


def test_what_cannot_be():
    with pytest.raises(UsageError):
        parts_of([True], [0, 1])
    with pytest.raises(UsageError):
        parts_of([True], [0], level=1.0)
    with pytest.raises(NotMeasuredError):
        least([])
