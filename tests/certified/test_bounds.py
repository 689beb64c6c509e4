"""Certified bounds against exact minima, exact arithmetic and attacks."""

import itertools
import math

import numpy as np
import pytest
import torch
from support.exact import exact_margin, in_fractions
from torch import nn

import robaudit as ra
from robaudit.attacks import pgd
from robaudit.certified.backward import lower_bound
from robaudit.certified.certify import certify, prepared
from robaudit.certified.graph import graph_of
from robaudit.certified.propagation import crown, propagate
from robaudit.certified.radius import certified_radii
from robaudit.certified.regions import Region
from robaudit.errors import NotCertifiableError, UsageError


def toy(seed, hidden=6, scale=1.0):
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, hidden), nn.ReLU(), nn.Linear(hidden, 3))
    with torch.no_grad():
        net[1].weight.mul_(scale)
        net[3].weight.mul_(scale)
    return net


def weights_of(net):
    linear = [layer for layer in net if isinstance(layer, nn.Linear)]
    return [(v.weight.detach().double().numpy(), v.bias.detach().double().numpy()) for v in linear]


def labelled(net, n, seed, shape=(1, 2, 2)):
    x = torch.rand(n, *shape, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        return x, net(x).argmax(1)


def smallest(net, x, y, eps):
    radius = eps * (1 + 1e-5) + 1e-6
    flat = x.double().flatten().numpy()
    low, high = (flat - radius).clip(0, 1), (flat + radius).clip(0, 1)
    return exact_margin(weights_of(net), low, high, int(y))


@pytest.mark.parametrize(
    "seed", [0, 1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(2, 6))]
)
def test_branch_and_bound_certifies_exactly_the_robust_examples_of_small_networks(seed):
    net = toy(seed, scale=3.0)
    x, y = labelled(net, 12, seed)
    threat = ra.ThreatModel("linf", 0.15)
    exact = np.array(
        [smallest(net, image, label, threat.eps) for image, label in zip(x, y, strict=True)]
    )
    decided = torch.tensor(np.abs(exact) > 1e-4)
    found = certify(net, x, y, threat, splits=2000, budget=math.inf)
    robust = torch.tensor(exact > 0)
    assert robust[decided].any() or seed
    assert found.certified[decided].equal(robust[decided])
    by_crown = certify(net, x, y, threat, method="crown").lower
    by_slopes = certify(net, x, y, threat, method="alpha").lower
    limit = torch.tensor(exact)
    assert (by_crown <= limit + 1e-12).all()
    assert (by_slopes <= limit + 1e-12).all()
    assert (found.lower <= limit + 1e-12).all()
    assert (by_slopes >= by_crown).all()
    assert (found.lower >= by_slopes).all()


@pytest.mark.slow
def test_both_kinds_of_examples_occur_among_the_small_networks():
    kinds = set()
    for seed in range(6):
        net = toy(seed, scale=3.0)
        x, y = labelled(net, 12, seed)
        kinds |= {smallest(net, image, label, 0.15) > 0 for image, label in zip(x, y, strict=True)}
    assert kinds == {True, False}


def test_a_stable_network_is_bounded_exactly():
    """Within a radius that changes no sign the network is affine, and CROWN exact."""
    net = toy(3)
    x, y = labelled(net, 20, 3)
    found = certify(net, x, y, ra.ThreatModel("linf", 1e-4), method="crown").lower
    exact = torch.tensor([smallest(net, a, b, 1e-4) for a, b in zip(x, y, strict=True)])
    assert ((exact - found).abs() < 1e-5).float().mean() > 0.8


@pytest.mark.parametrize(
    "seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 4))]
)
def test_bounds_hold_in_exact_arithmetic_where_float32_loses_everything(seed):
    """Weights that cancel: the logits in float32 are wrong in the first digit."""
    draw = torch.Generator().manual_seed(seed)
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    with torch.no_grad():
        large = 10.0 ** torch.randint(0, 7, (8, 1), generator=draw)
        net[1].weight.copy_(torch.randn(8, 4, generator=draw) * large)
        net[1].bias.copy_(-(net[1].weight * 0.5).sum(1))
        net[3].weight.copy_(torch.randn(2, 8, generator=draw) * 1e3)
        net[3].weight[:, 4:] = -net[3].weight[:, :4] * (1 + 1e-6)
    x = torch.rand(4, 1, 2, 2, generator=draw)
    eps = 2e-6
    for image in x:
        logits = in_fractions(weights_of(net), image.double().flatten())
        label = int(logits[1] > logits[0])
        graph = graph_of(net, (1, 2, 2))
        region = Region.around(image[None], "linf", eps)
        (certifier,), _ = prepared(net, (1, 2, 2))
        lower = float(certifier.crown(region, torch.tensor([label])).min())
        corners = itertools.product(*zip(region.low.flatten(), region.high.flatten(), strict=True))
        for corner in corners:
            point = torch.stack(corner)
            exact = in_fractions(weights_of(net), point)
            assert exact[label] - exact[1 - label] >= lower
            assert graph(point.view(1, 1, 2, 2)).shape == (1, 2)
        # The network in float32, in two orders of its sums.
        near = image[None] + (torch.rand(64, 1, 2, 2, generator=draw) - 0.5) * 2 * eps
        near = near.clamp(0, 1)
        with torch.no_grad():
            hidden = near.flatten(1) @ net[1].weight.T + net[1].bias
            backwards = (net[1].weight.flip(1)[None] * near.flatten(1).flip(1)[:, None]).cumsum(2)
            for first in (hidden, net[1].bias + backwards[..., -1]):
                z = first.relu() @ net[3].weight.T + net[3].bias
                assert (z[:, label] - z[:, 1 - label]).min() >= lower


class Residual(nn.Module):
    def __init__(self, activation):
        super().__init__()
        self.enter = nn.Conv2d(2, 4, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.inner = nn.Conv2d(4, 4, 3, padding=1, groups=2)
        self.act = activation
        self.leave = nn.Linear(8, 4)
        self.norm.running_mean.uniform_(-0.2, 0.2)
        self.norm.running_var.uniform_(0.5, 2)

    def forward(self, x):
        z = self.act(self.norm(self.enter(x - 0.4)))
        z = torch.cat([z + self.act(self.inner(z)), z], 1)
        return self.leave(nn.functional.max_pool2d(z, 2, 1).mean((2, 3)))


NETWORKS = {
    "residual": lambda: Residual(nn.ReLU()),
    "leaky": lambda: Residual(nn.LeakyReLU(0.1)),
    "tanh": lambda: Residual(nn.Tanh()),
    "sigmoid": lambda: nn.Sequential(
        *(nn.Conv2d(2, 5, 3), nn.Sigmoid(), nn.AvgPool2d(2), nn.Sigmoid()),
        *(nn.Flatten(), nn.Linear(20, 8), nn.Sigmoid(), nn.Linear(8, 4)),
    ),
    "relu6": lambda: nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.ReLU6(), nn.Flatten(), nn.Linear(64, 9), nn.Hardtanh(),
        nn.Linear(9, 4),
    ),
}  # fmt: skip


@pytest.mark.parametrize(
    "norm", ["linf", *(pytest.param(norm, marks=pytest.mark.slow) for norm in ("l2", "l1"))]
)
@pytest.mark.parametrize("name", NETWORKS)
def test_no_perturbed_image_has_a_smaller_margin(name, norm):
    torch.manual_seed(7)
    net = NETWORKS[name]().eval()
    with torch.no_grad():
        for part in net.parameters():
            if part.dim() > 1:
                part.mul_(2)
    x, y = labelled(net, 6, 3, (2, 6, 6))
    eps = {"linf": 0.02, "l2": 0.05, "l1": 0.1}[norm]
    threat = ra.ThreatModel(norm, eps)
    found = {
        method: certify(net, x, y, threat, method=method, splits=64, budget=math.inf)
        for method in ("crown", "alpha", "branch")
    }
    worst = torch.full((6,), math.inf, dtype=torch.float64)
    for seed, loss in itertools.product(range(2), ("ce", "margin")):
        adv = pgd(net, x, y, threat, steps=30, restarts=3, seed=seed, loss=loss).x
        with torch.no_grad():
            z = net(adv).double()
        right = z.gather(1, y[:, None])
        others = z.scatter(1, y[:, None], -math.inf).amax(1, keepdim=True)
        worst = torch.minimum(worst, (right - others)[:, 0])
    for method in found.values():
        assert (method.lower <= worst).all()
    assert (found["alpha"].lower >= found["crown"].lower).all()
    assert (found["branch"].lower >= found["alpha"].lower).all()
    assert found["branch"].certified.any()


def test_overflow_proves_nothing():
    """Where bounds of hidden values are no numbers, only what does not rest on them is left."""
    net = toy(0)
    x, y = labelled(net, 1, 0)
    (certifier,), _ = prepared(net, (1, 2, 2))
    bounds = propagate(certifier.graph, Region.around(x, "linf", 0.01), crown)
    form = {certifier.last: certifier.margins(int(y))}
    before = lower_bound(bounds, form)
    assert before.isfinite().all()
    for k in range(1, len(bounds.lower)):
        bounds.lower[k][...] = bounds.upper[k][...] = torch.nan
    without = lower_bound(bounds, form)
    assert without.isfinite().all()
    assert (without <= before).all()
    for k in bounds.error:
        bounds.error[k][...] = torch.nan
    assert lower_bound(bounds, form).isneginf().all()


def test_hidden_values_stay_within_their_bounds():
    torch.manual_seed(2)
    net = Residual(nn.ReLU()).eval()
    x = torch.rand(2, 2, 6, 6)
    graph = graph_of(net, (2, 6, 6))
    region = Region.around(x, "linf", 0.05)
    bounds = propagate(graph, region, crown)
    for _ in range(50):
        point = region.low + torch.rand_like(region.low) * (region.high - region.low)
        values = {0: point}
        for k, node in enumerate(graph.nodes[1:], 1):
            values[k] = node(*(values[i] for i in node.inputs))
            assert (values[k] >= bounds.lower[k]).all(), node.name
            assert (values[k] <= bounds.upper[k]).all(), node.name


def test_examples_are_certified_each_for_itself():
    torch.manual_seed(5)
    net = Residual(nn.ReLU()).eval()
    x, y = labelled(net, 9, 5, (2, 6, 6))
    threat = ra.ThreatModel("linf", 0.03)
    whole = certify(net, x, y, threat, splits=8, budget=math.inf)
    order = torch.tensor([7, 2, 5])
    some = certify(net, x[order], y[order], threat, splits=8, budget=math.inf)
    assert torch.allclose(some.lower, whole.lower[order], rtol=1e-4, atol=1e-6)
    assert some.certified.equal(whole.certified[order])


def test_misclassified_and_left_out_examples_are_not_certified():
    net = toy(0)
    x, y = labelled(net, 8, 0)
    wrong = (y + 1) % 3
    tiny = ra.ThreatModel("linf", 1e-5)
    assert not certify(net, x, wrong, tiny).certified.any()
    tried = torch.arange(8) < 3
    found = certify(net, x, y, tiny, tried=tried)
    assert not found.certified[3:].any()
    assert found.certified[:3].any()
    assert found.lower[3:].isneginf().all()
    assert set(found.method[3:]) == {""}


@pytest.mark.slow
def test_a_larger_radius_is_never_certified_where_a_smaller_one_is_refuted():
    net = toy(1, scale=3.0)
    x, y = labelled(net, 10, 1)
    before = torch.ones(10, dtype=torch.bool)
    for eps in (0.02, 0.06, 0.12, 0.2, 0.4):
        threat = ra.ThreatModel("linf", eps)
        now = certify(net, x, y, threat, splits=500, budget=math.inf).certified
        assert not (now & ~before).any()
        before = now
    assert not before.all()


@pytest.mark.slow
def test_the_certified_radius_is_certified_and_near_the_exact_one():
    net = toy(2, scale=3.0)
    x, y = labelled(net, 8, 2)
    radii = certified_radii(net, x, y, "linf", largest=0.3)
    for image, label, radius in zip(x, y, radii.tolist(), strict=True):
        assert 0 <= radius <= 0.3
        if radius:
            assert smallest(net, image, label, radius) > 0
    by_slopes = certified_radii(net, x, y, "linf", largest=0.3, method="alpha")
    assert (by_slopes >= radii - 1e-3).all()
    assert certified_radii(net, x, (y + 1) % 3, "linf", largest=0.3).eq(0).all()


class Kept(dict):
    """A cache; pieces beyond ``limit`` raise, as an interrupted run."""

    limit = None

    def __call__(self, name, compute):
        if name not in self:
            if self.limit is not None and len(self) >= self.limit:
                raise KeyboardInterrupt
            self[name] = compute()
        return self[name]


def test_an_interrupted_run_goes_on_and_a_larger_budget_goes_further():
    net = toy(4, hidden=40, scale=3.0)
    x, y = labelled(net, 4, 4)
    threat = ra.ThreatModel("linf", 0.2)

    def run(cache, splits=200):
        return certify(net, x, y, threat, splits=splits, budget=math.inf, cache=cache)

    whole = run(Kept())
    pieces = Kept()
    for limit in itertools.count(1):
        pieces.limit = limit
        try:
            again = run(pieces)
        except KeyboardInterrupt:
            continue
        break
    assert limit > 3
    assert again.lower.equal(whole.lower)
    assert again.splits.equal(whole.splits)
    pieces.limit = None
    assert (whole.splits <= 200).all()
    further = run(pieces, splits=600)
    assert (further.lower >= whole.lower).all()
    assert (further.splits >= whole.splits).all()


def test_a_network_that_is_too_large_is_refused_with_the_reason():
    layers = [nn.Conv2d(3, 160, 3, padding=1), nn.ReLU()]
    for _ in range(8):
        layers += [nn.Conv2d(160, 160, 3, padding=1), nn.ReLU()]
    net = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(160, 10))
    x = torch.rand(1, 3, 48, 48)
    with pytest.raises(NotCertifiableError, match="not certifiable at this size"):
        certify(net, x, torch.tensor([0]), ra.ThreatModel("linf", 0.01))


def test_a_large_network_gets_interval_bounds_quickly_and_says_so():
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 64, 3, padding=1), nn.ReLU()]
    for _ in range(3):
        layers += [nn.Conv2d(64, 64, 3, padding=1), nn.ReLU()]
    net = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))
    x, y = labelled(net, 2, 0, (3, 24, 24))
    found = certify(net, x, y, ra.ThreatModel("linf", 8 / 255))
    assert "interval bounds only" in found.notes[0]
    assert not found.certified.any()
    assert found.lower.isfinite().all()
    tiny = certify(net, x, y, ra.ThreatModel("linf", 1e-9))
    assert (tiny.lower >= found.lower).all()


def test_bad_arguments_are_refused():
    net = toy(0)
    x, y = labelled(net, 2, 0)
    threat = ra.ThreatModel("linf", 0.1)
    with pytest.raises(UsageError, match="method"):
        certify(net, x, y, threat, method="lirpa")
    with pytest.raises(UsageError, match="budget"):
        certify(net, x, y, threat, budget=-1)
    with pytest.raises(UsageError, match="splits"):
        certify(net, x, y, threat, splits=-1)
    with pytest.raises(UsageError, match="largest"):
        certified_radii(net, x, y, "l2", largest=0.0)
