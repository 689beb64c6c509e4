"""Upper bounds of the first ReLUs over the input's box, against enumeration of its corners."""

import itertools
from fractions import Fraction

import pytest
import torch
from scipy.optimize import linprog
from torch import nn

from robaudit.certified import hull, pixels
from robaudit.certified.certify import prepared
from robaudit.certified.graph import graph_of
from robaudit.certified.propagation import propagate
from robaudit.certified.regions import Region
from robaudit.certified.search import Search


def opened(net, shape, eps, seed=0):
    """The search before the logits around a random image."""
    draw = torch.Generator().manual_seed(seed)
    x = torch.rand(1, *shape, generator=draw)
    graph = graph_of(net.eval(), shape)
    bounds = propagate(graph, Region.around(x, "linf", eps), None)
    weights = pixels.pixel_weights(graph, bounds.region.centre)
    return Search.of(bounds, len(graph.nodes) - 1, weights), weights


def one_layer(seed):
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 12), nn.ReLU(), nn.Linear(12, 2))
    return opened(net, (1, 2, 2), 0.3, seed)[0]


def points(region, n=200):
    corners = itertools.product(*zip(region.low.flatten(), region.high.flatten(), strict=True))
    inside = region.low + torch.rand(n, *region.low.shape[1:]) * (region.high - region.low)
    return torch.cat([torch.tensor(list(corners)).double(), inside.flatten(1)])


@pytest.mark.parametrize("seed", range(3))
def test_whatever_the_shares_the_bound_holds(seed):
    search = one_layer(seed)
    ((k, found),) = search.hulls.items()
    p, (u, n) = 5, found.weight.shape
    assert u > 2
    x = points(search.bounds.region)
    layer = search.bounds.graph.nodes[k].inputs[0]
    value = search.bounds.graph.nodes[layer].operator(x).relu()
    a = torch.randn(p, value.shape[1], dtype=torch.float64)
    # Random ones, all ones and none, and the beginning.
    shares = torch.rand(p, u, n, dtype=torch.float64)
    shares[0], shares[1], shares[2] = 0, 1, found.start(1)[0]
    free = torch.rand(p, u) > 0.3
    left, below, constant, lost = hull.Upper(found, shares, free).through(a)
    bound = left @ value.T + below @ x.T + (constant - lost)[:, None]
    assert (a @ value.T >= bound).all()
    taken = torch.zeros_like(a, dtype=torch.bool).index_copy_(1, found.position, free) & (a < 0)
    assert left[taken].eq(0).all()
    assert left[~taken].equal(a[~taken])


def test_equal_shares_give_the_line_through_both_ends():
    search = one_layer(1)
    ((k, found),) = search.hulls.items()
    a = -torch.eye(12, dtype=torch.float64)[found.position]
    _, below, constant, _ = hull.Upper(found, found.start(len(a))).through(a)
    source = search.bounds.graph.nodes[k].inputs[0]
    low, high = (
        side[source].flatten()[found.position]
        for side in (search.bounds.lower, search.bounds.upper)
    )
    x = points(search.bounds.region)
    z = search.bounds.graph.nodes[source].operator(x)[:, found.position].T
    line = (high / (high - low))[:, None] * (z - low[:, None])
    torch.testing.assert_close(-(below @ x.T + constant[:, None]), line, rtol=0, atol=1e-5)


def test_the_best_shares_are_exact_at_every_corner():
    search = one_layer(2)
    ((k, found),) = search.hulls.items()
    source = search.bounds.graph.nodes[k].inputs[0]
    corners = points(search.bounds.region, 0)
    value = search.bounds.graph.nodes[source].operator(corners)[:, found.position].relu()
    for j in range(len(found.position)):
        for corner, wanted in zip(corners, value[:, j], strict=True):
            # The least sum s w x - sum s m where sum s (M - m) is high.
            gain = found.weight[j] * corner[found.pixel[j]] - found.least[j]
            best = linprog(
                gain.numpy(),
                A_eq=found.width[j : j + 1].numpy(),
                b_eq=found.high[j : j + 1].numpy(),
                bounds=(0, 1),
            )
            shares = torch.full_like(found.weight, 0.5)[None]
            shares[0, j] = torch.from_numpy(best.x)
            a = torch.zeros(1, 12, dtype=torch.float64)
            a[0, found.position[j]] = -1
            _, below, constant, _ = hull.Upper(found, shares).through(a)
            assert abs(float(-(below @ corner + constant)) - float(wanted)) < 1e-9


def test_weights_are_the_derivatives_of_the_first_relus_only():
    torch.manual_seed(3)
    net = nn.Sequential(
        nn.BatchNorm2d(2), nn.Conv2d(2, 3, 3, stride=2, padding=1), nn.ReLU(),
        nn.Conv2d(3, 2, 2), nn.ReLU(), nn.Flatten(), nn.Linear(8, 2),
    )  # fmt: skip
    net[0].running_mean.uniform_(-1, 1)
    search, weights = opened(net, (2, 6, 6), 0.3)
    ((k, found),) = weights.items()
    first = net[:2].double()
    x = torch.rand(1, 2, 6, 6, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(first, x).view(27, 72)
    dense = torch.zeros(27, 72, dtype=torch.float64).scatter_add(1, found.pixel, found.weight)
    torch.testing.assert_close(dense, jacobian, rtol=1e-6, atol=1e-6)
    value = dense @ x.flatten() + found.constant
    torch.testing.assert_close(value, first(x).flatten(), rtol=1e-6, atol=1e-6)
    assert list(search.hulls) == [k]


@pytest.mark.parametrize("seed", range(4))
def test_the_error_covers_float32_where_terms_cancel(seed):
    draw = torch.Generator().manual_seed(seed)
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    with torch.no_grad():
        net[1].weight.copy_(torch.randn(8, 4, generator=draw) * 1e6)
        net[1].bias.copy_(-(net[1].weight * 0.5).sum(1))
    search, _ = opened(net, (1, 2, 2), 0.5, seed)
    ((_, found),) = search.hulls.items()
    x = torch.rand(200, 4, generator=draw)
    with torch.no_grad():
        single = net[1](x)[:, found.position]
    weight, bias = net[1].weight[found.position].tolist(), net[1].bias[found.position].tolist()
    for point, row in zip(x.tolist(), single.tolist(), strict=True):
        for j, value in enumerate(row):
            exact = sum(Fraction(w) * Fraction(v) for w, v in zip(weight[j], point, strict=True))
            exact += Fraction(bias[j])
            assert abs(Fraction(value) - exact) <= Fraction(float(found.error[j]))


@pytest.mark.parametrize("seed", range(3))
def test_a_bound_of_one_relu_beside_a_linear_form_is_exact(seed):
    """The line of the argument alone leaves a gap there."""
    draw = torch.Generator().manual_seed(seed)
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 2))
    with torch.no_grad():
        net[1].weight.copy_(torch.eye(5, 4))
        net[1].weight[4] = torch.randn(4, generator=draw)
        net[1].bias.fill_(1)  # the first four are always on
        net[1].bias[4] = -0.5 * net[1].weight[4].sum()
        net[3].weight.zero_()
        net[3].weight[0, :4] = 0.5 * net[1].weight[4] + 0.2 * torch.randn(4, generator=draw)
        net[3].weight[0, 4] = -1
        net[3].bias.zero_()
    search, _ = opened(net, (1, 2, 2), 1.0, seed)
    corners = points(search.bounds.region, 0)
    with torch.no_grad():
        z = net.double()(corners)
    exact = float((z[:, 0] - z[:, 1]).min())  # concave: the minimum is at a corner
    form = torch.tensor([[1.0, -1.0]], dtype=torch.float64)
    bound = float(search.raised(form, search.start(1), 100)[0])
    plain = Search.of(search.bounds, search.node, {})
    line = float(plain.raised(form, plain.start(1), 100)[0])
    assert exact - 1e-3 < bound <= exact + 1e-9
    assert line < exact - 0.02


def test_bounds_with_hulls_are_larger_and_below_every_sampled_margin(monkeypatch):
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 2), nn.ReLU(), nn.Flatten(), nn.Linear(36, 3)
    )
    with torch.no_grad():
        for part in (net[0], net[2], net[5]):
            part.weight.mul_(2)
    x = torch.rand(2, 1, 6, 6)
    with torch.no_grad():
        y = net(x).argmax(1)
    (certifier,), _ = prepared(net, (1, 6, 6))
    for i, label in enumerate(y.tolist()):
        region = Region.around(x[i : i + 1], "linf", 0.1)
        lowest = torch.full((2,), -99.0, dtype=torch.float64)
        found = certifier.raised(region, label, lowest)[1]
        with monkeypatch.context() as patch:
            patch.setitem(certifier.__dict__, "weights", {})
            without = certifier.raised(region, label, lowest)[1]
        assert (found >= without - 1e-3).all()
        assert found.min() > without.min() + 0.01
        ends = torch.rand(500, 1, 6, 6).round()
        with torch.no_grad():
            z = certifier.graph(region.low + ends * (region.high - region.low))
        assert (found <= (z @ certifier.margins(label).T).amin(0)).all()
