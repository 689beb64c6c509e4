"""Learning rates by epoch."""

from itertools import pairwise

import pytest

from robaudit.training import constant, cosine, cyclic, piecewise, piecewise_zoom


def test_cosine_warms_up_and_falls_to_its_floor():
    rates = cosine(1.0, 103, warmup=3, floor=0.1)
    assert rates[:4] == [0.25, 0.5, 0.75, 1.0]
    assert rates[3:] == sorted(rates[3:], reverse=True)
    assert len(rates) == 103
    assert 0.1 < rates[-1] < 0.101


def test_piecewise_is_the_published_schedule():
    rates = piecewise(0.1, 200, [100, 150])
    assert rates[:100] == [0.1] * 100
    assert rates[100:150] == pytest.approx([0.01] * 50)
    assert rates[150:] == pytest.approx([0.001] * 50)


def test_piecewise_zoom_falls_by_one_factor_an_epoch_and_ends_where_piecewise_does():
    rates, sudden = piecewise_zoom(0.1, 200, [100, 150], 0.1, 10), piecewise(0.1, 200, [100, 150])
    for first, last in [(0, 99), (109, 149), (159, 199)]:
        assert rates[first : last + 1] == pytest.approx(sudden[first : last + 1])
    for begin in (99, 149):
        ratios = [b / a for a, b in pairwise(rates[begin : begin + 11])]
        assert ratios == pytest.approx([0.1**0.1] * 10)
    assert piecewise_zoom(0.1, 200, [100, 150], 0.1, 1) == pytest.approx(sudden)


def test_cyclic_is_a_triangle_with_its_top_at_two_fifths():
    rates = cyclic(0.2, 50)
    assert max(rates) == pytest.approx(0.2, rel=0.05)
    assert rates.index(max(rates)) in (19, 20)
    rise = [b - a for a, b in pairwise(rates[:20])]
    fall = [b - a for a, b in pairwise(rates[21:])]
    assert rise == pytest.approx([0.2 / 20] * 19)
    assert fall == pytest.approx([-0.2 / 30] * 28)
    assert sum(rates) == pytest.approx(0.2 * 50 / 2, rel=1e-2)  # the triangle's area


def test_all_have_an_epoch_each_and_warm_up_alike():
    for rates in (constant(1.0, 9, warmup=2), piecewise(1.0, 9, [5], warmup=2),
                  piecewise_zoom(1.0, 9, [5], warmup=2),
                  cosine(1.0, 9, warmup=2)):  # fmt: skip
        assert len(rates) == 9
        assert rates[:3] == pytest.approx([1 / 3, 2 / 3, 1])
