"""Regions and linear bounds of activations, against linear programs and dense grids."""

import math

import numpy as np
import pytest
import torch
from scipy.optimize import linprog

from robaudit.certified.planes import relu_planes, tanh_planes
from robaudit.certified.regions import Region


@pytest.mark.parametrize("norm", ["l1", "l2", "linf"])
def test_the_minimum_of_a_linear_form_over_a_ball_cut_with_the_box(norm):
    draw = torch.Generator().manual_seed(1)
    x = torch.rand(5, 1, 3, 3, generator=draw)
    x[0] = 0.5  # the ball fits in the box
    a = torch.randn(5, 1, 3, 3, generator=draw, dtype=torch.float64)
    eps = 0.4
    region = Region.around(x, norm, eps)
    found = region.minimum(a)
    for i in range(5):
        form, centre = a[i].flatten().numpy(), x[i].double().flatten().numpy()
        low, high = region.low[i].flatten().numpy(), region.high[i].flatten().numpy()
        exact = _minimum(norm, form, centre, low, high, float(region.eps[i]))
        assert found[i] <= exact + 1e-9
        assert found[i] >= exact - 1e-3 * abs(exact)


def _minimum(norm, a, centre, low, high, eps):
    if norm == "linf":
        return float(np.where(a > 0, low, high) @ a)
    if norm == "l1":
        # x = centre + up - down
        bounds = [(0, h) for h in high - centre] + [(0, d) for d in centre - low]
        solved = linprog(np.r_[a, -a], A_ub=np.ones((1, 2 * len(a))), b_ub=[eps], bounds=bounds)
        return float(a @ centre + solved.fun)
    lower, upper = 1e-12, 1e6
    for _ in range(200):  # the multiplier at which the clipped step has the radius
        middle = math.sqrt(lower * upper)
        step = np.clip(-a / (2 * middle), low - centre, high - centre)
        lower, upper = (middle, upper) if step @ step > eps**2 else (lower, middle)
    return float(a @ (centre + step))


@pytest.mark.parametrize("kind", [torch.relu, torch.tanh])
def test_planes_enclose_the_activation(kind):
    draw = torch.Generator().manual_seed(0)
    width = 10 ** (torch.rand(400, generator=draw, dtype=torch.float64) * 6 - 4)
    low = torch.randn(400, generator=draw, dtype=torch.float64) * 3 - width / 2
    high = low + width
    slope = torch.rand(400, generator=draw, dtype=torch.float64)
    if kind is torch.relu:
        made = [relu_planes(low, high), relu_planes(low, high, slope)]
    else:
        made = [tanh_planes(low, high), tanh_planes(low, high, (slope, slope.flip(0)))]
    share = torch.linspace(0, 1, 2001, dtype=torch.float64)[:, None]
    z = low + share * (high - low)
    for planes in made:
        below = planes.lower_slope * z + planes.lower_shift
        above = planes.upper_slope * z + planes.upper_shift
        assert (below <= kind(z) + 1e-12 * (1 + z.abs())).all()
        assert (above >= kind(z) - 1e-12 * (1 + z.abs())).all()
        # Each touches the function: no shift could be better.
        assert ((kind(z) - below).amin(0) <= width / 2000 + 1e-12).all()
        assert ((above - kind(z)).amin(0) <= width / 2000 + 1e-12).all()
