"""Intervals against scipy, closed forms, exact coverage and a published table."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, binomtest, norm, t

from robaudit.errors import NotMeasuredError, UsageError
from robaudit.statistics import (
    clopper_pearson,
    degrees_of,
    from_standard_error,
    newcombe,
    normal_interval,
    standard_error_of_proportion,
    t_interval,
    wilson,
)

COUNTS = [(0, 1), (1, 1), (0, 30), (1, 30), (17, 30), (30, 30), (534, 1000), (4730, 10000)]


@pytest.mark.parametrize("level", [0.5, 0.9, 0.95, 0.999])
@pytest.mark.parametrize(("successes", "n"), COUNTS)
@pytest.mark.parametrize(
    ("ours", "theirs"), [(clopper_pearson, "exact"), (wilson, "wilson")], ids=["exact", "wilson"]
)
def test_agrees_with_scipy(ours, theirs, successes, n, level):
    interval = ours(successes, n, level)
    reference = binomtest(successes, n).proportion_ci(level, method=theirs)
    # scipy finds the exact ends by root search: its tolerance, not ours, sets the bound
    assert interval.low == pytest.approx(reference.low, abs=1e-9)
    assert interval.high == pytest.approx(reference.high, abs=1e-9)
    assert interval.level == level


@pytest.mark.parametrize("n", [1, 2, 10, 1000])
def test_closed_forms_at_no_success_and_no_failure(n):
    # Clopper-Pearson at k = 0: (1 - high)^n = tail; Wilson at k = 0: high = z^2 / (n + z^2)
    none, every = clopper_pearson(0, n), clopper_pearson(n, n)
    assert none.low == 0
    assert every.high == 1
    assert none.high == pytest.approx(1 - 0.025 ** (1 / n), rel=1e-12)
    assert every.low == pytest.approx(0.025 ** (1 / n), rel=1e-12)
    z2 = norm.ppf(0.975) ** 2
    assert wilson(0, n).low == 0
    assert wilson(n, n).high == 1
    assert wilson(0, n).high == pytest.approx(z2 / (n + z2), rel=1e-12)


@pytest.mark.parametrize("level", [0.8, 0.95])
@pytest.mark.parametrize("n", [1, 2, 3, 7, 20, 41, 60])
def test_exact_coverage(n, level):
    """Summed over all counts, not simulated: Clopper-Pearson never covers less than its level."""
    p = np.linspace(0.001, 0.999, 499)
    coverage = {clopper_pearson: np.zeros_like(p), wilson: np.zeros_like(p)}
    for k in range(n + 1):
        weight = binom.pmf(k, n, p)
        for method, total in coverage.items():
            interval = method(k, n, level)
            total += weight * ((interval.low <= p) & (p <= interval.high))
    assert coverage[clopper_pearson].min() >= level - 1e-12
    if n >= 20:  # on average over proportions, Wilson's coverage is close to its level
        assert abs(coverage[wilson].mean() - level) < 0.02


@pytest.mark.parametrize(
    ("counts", "low", "high"),
    [  # Newcombe 1998, Table II, method 10
        ((56, 70, 48, 80), 0.0524, 0.3339),
        ((9, 10, 3, 10), 0.1705, 0.8090),
        ((10, 10, 0, 10), 0.6075, 1.0),
        ((0, 10, 0, 20), -0.1611, 0.2775),
    ],
)
def test_newcombe_reproduces_the_published_intervals(counts, low, high):
    interval = newcombe(*counts)
    assert interval.low == pytest.approx(low, abs=6e-5)
    assert interval.high == pytest.approx(high, abs=6e-5)
    assert interval.method == "newcombe"


@given(st.data(), st.integers(1, 500), st.integers(1, 500))
def test_newcombe_is_antisymmetric_and_holds_the_difference(data, n_a, n_b):
    a = data.draw(st.integers(0, n_a))
    b = data.draw(st.integers(0, n_b))
    forth, back = newcombe(a, n_a, b, n_b), newcombe(b, n_b, a, n_a)
    assert forth.low == pytest.approx(-back.high, abs=1e-12)
    assert forth.high == pytest.approx(-back.low, abs=1e-12)
    assert -1 <= forth.low <= a / n_a - b / n_b <= forth.high <= 1


@given(st.data(), st.integers(1, 2000), st.floats(0.01, 0.9999))
def test_intervals_hold_the_proportion_and_mirror(data, n, level):
    k = data.draw(st.integers(0, n))
    for method in (clopper_pearson, wilson):
        interval, mirror = method(k, n, level), method(n - k, n, level)
        assert 0 <= interval.low <= k / n + 1e-12
        assert k / n - 1e-12 <= interval.high <= 1
        assert interval.low == pytest.approx(1 - mirror.high, abs=1e-10)


def test_normal_interval():
    interval = normal_interval(2.0, 0.5, 0.9, "normal-jackknife")
    assert interval.high - 2 == pytest.approx(norm.ppf(0.95) * 0.5, rel=1e-12)
    assert interval.low + interval.high == pytest.approx(4)
    assert (interval.level, interval.method) == (0.9, "normal-jackknife")
    assert math.isfinite(normal_interval(0, 1, math.nextafter(1, 0)).high)


def test_standard_error_of_proportion():
    assert standard_error_of_proportion(300, 1000) == pytest.approx(math.sqrt(0.3 * 0.7 / 1000))
    assert standard_error_of_proportion(0, 10) == 0


@pytest.mark.parametrize("method", [clopper_pearson, wilson])
@pytest.mark.parametrize(
    "arguments",
    [(0, 0), (-1, 5), (6, 5), (1, 5, 0.0), (1, 5, 1.0), (1, 5, 95), (1, 5, float("nan"))],
)
def test_refuses_what_cannot_be(method, arguments):
    with pytest.raises(UsageError):
        method(*arguments)


def test_normal_interval_refuses():
    for value, error in [(math.nan, 1), (1, math.nan), (math.inf, 1), (1, math.inf)]:
        with pytest.raises(NotMeasuredError):
            normal_interval(value, error)
    with pytest.raises(UsageError):
        normal_interval(1, -0.1)


@pytest.mark.parametrize("level", [0.5, 0.9, 0.998])
@pytest.mark.parametrize("degrees", [1, 4, 1000])
def test_a_t_interval_is_scipys(degrees, level):
    found = t_interval(-2.0, 0.3, degrees, level)
    low, high = t.interval(level, degrees, -2.0, 0.3)
    assert (found.low, found.high) == pytest.approx((low, high), rel=1e-12)
    assert degrees_of(found) == degrees
    assert from_standard_error(-2.0, 0.3, degrees, level) == found
    assert from_standard_error(-2.0, 0.3, None, level) == normal_interval(-2.0, 0.3, level)


def test_a_t_interval_of_one_draw_is_none():
    with pytest.raises(NotMeasuredError, match="0 degrees"):
        t_interval(1.0, 0.1, 0)
    with pytest.raises(NotMeasuredError):
        t_interval(1.0, math.nan, 4)
    assert degrees_of(None) is None
