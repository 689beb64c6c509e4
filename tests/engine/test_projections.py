"""Projections against independent solvers."""

import numpy as np
import pytest
import torch
from scipy.optimize import linprog, minimize
from support.attacks import distance

from robaudit.attacks.hyperplanes import to_hyperplane
from robaudit.engine.projections import ascend, project, project_l1, random_start
from robaudit.types import ThreatModel


def points(n=12, pixels=6, seed=0):
    torch.manual_seed(seed)
    return torch.rand(n, 1, 1, pixels)


@pytest.mark.parametrize("eps", [0.2, 1.0, 50.0])
def test_the_l1_projection_is_the_nearest_point(eps):
    x = points()
    x[0] = 0  # on the edge of the box
    far = x + 0.8 * torch.randn_like(x)
    near = project_l1(far, x, eps)
    assert float(distance(near, x, "l1").max()) <= eps * (1 + 1e-6)
    assert 0 <= float(near.min()) <= float(near.max()) <= 1
    for at in range(len(x)):
        centre, wanted = x[at].flatten().double().numpy(), far[at].flatten().double().numpy()
        # split into a way up and a way down, both not negative
        d = len(centre)

        def cost(ways, centre=centre, wanted=wanted, d=d):
            return np.sum((centre + ways[:d] - ways[d:] - wanted) ** 2)

        solved = minimize(
            cost, np.zeros(2 * d), method="SLSQP",
            bounds=[(0, 1 - c) for c in centre] + [(0, c) for c in centre],
            constraints={"type": "ineq", "fun": lambda ways: eps - ways.sum()},
            options={"ftol": 1e-14, "maxiter": 500},
        )  # fmt: skip
        mine = float(((near[at] - far[at]).double() ** 2).sum())
        assert mine <= solved.fun * (1 + 1e-4) + 1e-6


def test_the_l1_projection_of_many_is_that_of_each():
    x = points(64, 49)
    far = x + torch.randn_like(x)
    together = project_l1(far, x, 2.0)
    order = torch.randperm(64)
    assert torch.equal(project_l1(far[order], x[order], 2.0), together[order])


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_projections_keep_inner_points_and_starts_are_inside(norm):
    ball = ThreatModel(norm, 0.5)
    x = points(30, 49)
    start = random_start(x, torch.arange(30), ball, 0, 0)
    assert float(distance(start, x, norm).max()) <= 0.5 * (1 + 1e-5)
    assert float(distance(start, x, norm).min()) > 0
    torch.testing.assert_close(project(start, x, ball), start)
    step = ascend(x, torch.randn_like(x), 0.1, norm) - x
    length = distance(step, torch.zeros_like(step), norm)
    torch.testing.assert_close(length, torch.full_like(length, 0.1), rtol=1e-4, atol=0)


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_the_start_of_an_image_does_not_depend_on_its_neighbours(norm):
    ball, x, index = ThreatModel(norm, 0.5), points(37, 49), torch.arange(37) * 3
    whole = random_start(x, index, ball, 0, 1)
    order = torch.randperm(37, generator=torch.Generator().manual_seed(0))
    assert torch.equal(random_start(x[order], index[order], ball, 0, 1), whole[order])
    for size in (1, 5, 16):
        some = zip(x.split(size), index.split(size), strict=True)
        assert torch.equal(torch.cat([random_start(*part, ball, 0, 1) for part in some]), whole)


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
@pytest.mark.parametrize("reach", [0.3, 5.0])
def test_the_way_to_a_hyperplane_is_the_shortest(norm, reach):
    torch.manual_seed(1)
    n, d = 12, 6
    at, normal = torch.rand(n, d), torch.randn(n, d)
    normal[:, 0] = 0
    gap = reach * torch.randn(n)
    way = to_hyperplane(at, normal, gap, norm)
    ends = at + way
    assert -1e-6 <= float(ends.min()) <= float(ends.max()) <= 1 + 1e-6
    for row in range(n):
        p, w, g = (t[row].double().numpy() for t in (at, normal, gap))
        mine = way[row].double().numpy()
        farthest = np.maximum(-np.sign(g) * w, 0) @ (1 - p) + np.maximum(np.sign(g) * w, 0) @ p
        if farthest < abs(g):  # the box does not reach the hyperplane: as far as it goes
            assert w @ mine == pytest.approx(-np.sign(g) * farthest, rel=1e-4, abs=1e-5)
            continue
        assert w @ mine == pytest.approx(-g, rel=1e-4, abs=1e-5)
        assert np.linalg.norm(mine, _ORDER[norm]) <= _shortest(p, w, g, norm) * (1 + 1e-3) + 1e-5


_ORDER = {"linf": np.inf, "l2": 2, "l1": 1}


def _shortest(p, w, g, norm):
    d = len(p)
    if norm == "l2":
        solved = minimize(
            lambda way: way @ way, np.zeros(d), jac=lambda way: 2 * way, method="SLSQP",
            bounds=list(zip(-p, 1 - p, strict=True)),
            constraints={"type": "eq", "fun": lambda way: w @ way + g},
            options={"ftol": 1e-14, "maxiter": 500},
        )  # fmt: skip
        assert solved.success
        return np.sqrt(solved.fun)
    extra = 1 if norm == "linf" else d  # |way_i| <= t, or <= t_i, and the sum of t is least
    limits = np.ones((d, 1)) if norm == "linf" else np.eye(d)
    above = np.block([[np.eye(d), -limits], [-np.eye(d), -limits]])
    solved = linprog(
        np.r_[np.zeros(d), np.ones(extra)], A_ub=above, b_ub=np.zeros(2 * d),
        A_eq=np.r_[w, np.zeros(extra)][None], b_eq=[-g],
        bounds=[*zip(-p, 1 - p, strict=True), *[(0, None)] * extra],
    )  # fmt: skip
    assert solved.success
    return solved.fun
