"""Means and standard errors against numpy, and at the edges."""

from __future__ import annotations

import math
from statistics import fmean, stdev

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from robaudit.errors import NotMeasuredError
from robaudit.statistics import mean, ratio_of_means


@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=50))
def test_agrees_with_exactly_rounded_sums(sample):
    result = mean(sample)
    assert result.value == pytest.approx(fmean(sample), rel=1e-12, abs=1e-9)
    error = stdev(sample) / math.sqrt(len(sample))
    assert result.standard_error == pytest.approx(error, rel=1e-9, abs=1e-9)


def test_float32_is_summed_in_float64():
    # 2^24 + 1 is no float32: a float32 sum of these would lose the ones
    sample = np.array([2.0**24, 1, 1, 1], dtype=np.float32)
    assert mean(sample).value == (2.0**24 + 3) / 4


def test_shape_does_not_matter():
    values = np.arange(12.0)
    assert mean(values.reshape(3, 4)) == mean(values)
    assert mean(values).n == 12


def test_one_value_has_no_standard_error():
    assert mean([3.0]).standard_error is None


@pytest.mark.parametrize("sample", [[], [1.0, math.nan], [math.inf]])
def test_refuses_what_has_no_mean(sample):
    with pytest.raises(NotMeasuredError):
        mean(sample)


def test_the_error_of_a_ratio_is_the_jackknife_s():
    """Which agrees to first order: 400 pairs, their second order is one part in 400."""
    draw = np.random.default_rng(0)
    below = draw.gamma(4.0, size=400)
    top = 2 * below + draw.normal(size=400)
    found = ratio_of_means(top, below)
    assert found.value == pytest.approx(top.sum() / below.sum())
    left = (top.sum() - top) / (below.sum() - below)
    jackknife = math.sqrt(399 / 400 * ((left - left.mean()) ** 2).sum())
    assert found.standard_error == pytest.approx(jackknife, rel=0.02)


def test_a_ratio_to_nothing_is_refused():
    with pytest.raises(NotMeasuredError):
        ratio_of_means(np.ones(3), np.zeros(3))
