"""Networks that are not robust and look it: the right number, or a doubt and exit code 3.

Each holds the weights of the sample ``standard.pt``, of whose digits an attack breaks all but two
in a hundred.
"""

import math

import pytest
import torch
from support.console import SAMPLES
from torch import nn
from torch.nn import functional as F

from robaudit.attacks.diagnostics import Diagnostics
from robaudit.audit import Plan, audit
from robaudit.audit.doubts import signs_of_masking
from robaudit.audit.probes import AutoAttack, Cw, Fast, Pgd
from robaudit.checkpoints import load
from robaudit.gate.policy import read_policy
from robaudit.gate.run import Population, gate
from robaudit.types import Examples, ThreatModel

PGD = Pgd(steps=10)
CW = Cw(steps=10)


def on_grid(x):
    """Clean digits lie on multiples of 1/16; attacked ones do not."""
    return (x * 16 - (x * 16).round()).abs().flatten(1).amax(1) < 1e-4


class Whole(nn.Module):
    def __init__(self, net):
        super().__init__()
        self.net = net
        self.register_buffer("r", torch.randn(10, 64, generator=torch.Generator().manual_seed(3)))


class NotANumber(Whole):
    """The gradient is not a number; the logits are."""

    def forward(self, x):
        nothing = (x - x.detach()).abs().sqrt()
        return self.net(x) + 0 * nothing.flatten(1).sum(1, keepdim=True)


class OffTheGrid(Whole):
    """Honest gradients on clean images, none where an attack begins."""

    def forward(self, x):
        z = self.net(x)
        return torch.where(on_grid(x)[:, None], z, z.detach() + 0 * z)


class WrongSign(Whole):
    """The gradient points downhill."""

    def forward(self, x):
        return self.net(2 * x.detach() - x)


class Elsewhere(Whole):
    """The gradient is that of a random projection."""

    def forward(self, x):
        other = x.flatten(1) @ self.r.T
        return self.net(x).detach() + other - other.detach()


class Rounded(Whole):
    """A rounded input and a tiny linear term: losses rise and lead nowhere."""

    def forward(self, x):
        return self.net((x * 16).round() / 16) + 1e-4 * (x.flatten(1) @ self.r.T)


class OneHot(Whole):
    """Hard decisions and a small linear term."""

    def forward(self, x):
        hard = F.one_hot(self.net(x).argmax(1), 10).float()
        return 3 * hard + 3e-2 * (x.flatten(1) @ self.r.T)


class Saturated(Whole):
    """Logits so large that float32 has no cross-entropy left."""

    def forward(self, x):
        return 1e4 * self.net(x)


class Alone(Whole):
    """Off the grid every other logit is minus infinity, and the loss is nought."""

    def forward(self, x):
        z = self.net(x)
        alone = torch.full_like(z, -math.inf).scatter(1, z.argmax(1, keepdim=True), 0.0)
        return torch.where(on_grid(x)[:, None], z, alone)


@pytest.fixture(scope="module")
def standard():
    return load(SAMPLES / "standard.pt", device="cpu")


def accuracies(network, few, plan):
    report = audit(network, few, ThreatModel("linf", 0.15), plan).report
    return {m.name.partition(".")[2]: m for m in report.measurements if m.name != "loss.clean"}


@pytest.mark.slow
@pytest.mark.parametrize("kind", [NotANumber, OffTheGrid, WrongSign, Elsewhere, Rounded, OneHot])
def test_an_attack_that_was_misled_says_so(kind, standard, few):
    found = accuracies(kind(standard), few, Plan(probes=(PGD, CW, Fast())))
    for name in ("pgd", "cw", "fast"):
        assert found[name].value < 0.1 or found[name].doubts
    assert found["pgd"].value > 0.5
    assert found["robust"].doubts
    assert found["clean"].doubts == []


@pytest.mark.slow
def test_saturated_logits_hide_nothing(standard, few):
    """The cross-entropy is nought in float32 on all of them, and PGD climbs it all the same."""
    honest = accuracies(standard, few, Plan(probes=(PGD, Fast())))
    found = accuracies(Saturated(standard), few, Plan(probes=(PGD, Fast())))
    assert found["pgd"].value == pytest.approx(honest["pgd"].value, abs=1 / 32)
    assert found["fast"].value == honest["fast"].value
    assert found["pgd"].doubts == []


@pytest.mark.slow
def test_honest_networks_are_not_doubted(standard, robust, few):
    for network in (standard, robust):
        found = accuracies(network, few, Plan(probes=(PGD, CW, Fast())))
        assert not any(m.doubts for m in found.values())


def verdict(network, few, tmp_path, metric):
    path = tmp_path / "policy.toml"
    path.write_text(
        f'[gate]\ndata = "digits"\npreset = "quick"\n[gate.metrics."{metric}"]\nmin = 0.5\n'
    )
    policy = read_policy(path)
    (suite,) = policy.suites
    population = Population(suite, few, ThreatModel("linf", 0.15))
    (decision,) = gate(network, policy, [population]).decisions
    return decision


@pytest.mark.parametrize("kind", [NotANumber, OffTheGrid, WrongSign, Elsewhere, Rounded, OneHot])
def test_the_gate_passes_none_of_them(kind, standard, few, tmp_path):
    decision = verdict(kind(standard), few, tmp_path, "accuracy.pgd")
    assert decision.outcome == "inconclusive"
    assert decision.doubts
    assert decision.value > 0.5


def test_logits_that_are_minus_infinity_under_attack_are_not_measured_anywhere(
    standard, few, tmp_path
):
    found = accuracies(Alone(standard), few, Plan(probes=(PGD, CW, Fast())))
    for name in ("pgd", "cw", "fast"):
        assert found[name].status == "failed"
        assert "not finite" in found[name].reason
    for metric in ("accuracy.pgd", "accuracy.fast"):
        decision = verdict(Alone(standard), few, tmp_path, metric)
        assert (decision.outcome, "not finite" in decision.reason) == ("inconclusive", True)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["reference", "native"])
def test_one_image_that_square_alone_broke_is_enough(engine, standard, few):
    """And the library's own sentence arrives, also where every batch was done before."""
    kept = {}

    def cache(name, compute):
        if name not in kept:
            kept[name] = compute()
        return kept[name]

    plan = Plan(probes=(AutoAttack(engine=engine),))
    threat = ThreatModel("linf", 0.15)
    first, again = (
        audit(OneHot(standard), few, threat, plan, cache=cache)
        .report.get("accuracy.autoattack")
        for _ in range(2)
    )  # fmt: skip
    assert first.value > 0.1
    assert first.details["diagnostics"]["black_box_only"] > 0
    assert any("Square broke" in text for text in first.doubts)
    if engine == "reference":
        assert any("Square Attack has decreased" in text for text in first.warnings)
    assert (again.doubts, again.warnings) == (first.doubts, first.warnings)


class Constant(nn.Module):
    """Dark or bright: constant in the balls around both kinds, continuous between them."""

    def __init__(self):
        super().__init__()
        self.steepness = nn.Parameter(torch.tensor(20.0))

    def forward(self, x):
        lead = (self.steepness * (0.5 - x.flatten(1).mean(1))).clamp(-1, 1)
        return torch.stack([lead, -lead], 1)


def test_a_network_that_is_constant_in_the_ball_is_not_doubted():
    """No gradient, no loss that rises, and nothing masked: certified networks are like that."""
    draw = torch.Generator().manual_seed(0)
    y = torch.arange(24) % 2
    x = (0.2 + 0.6 * y[:, None, None, None]) + 0.1 * torch.rand(24, 1, 8, 8, generator=draw)
    two = Examples(x, y, torch.arange(24), "two", "test", "0" * 64, 2)
    report = audit(Constant(), two, ThreatModel("linf", 0.05), Plan(probes=(PGD, CW))).report
    assert report.get("accuracy.pgd").value == 1
    assert report.get("accuracy.pgd").details["diagnostics"]["stuck"] == 24
    assert not any(m.doubts for m in report.measurements)


def signs(**counts):
    """The doubts of an attack on a hundred images, all of which stood, with these counts."""
    blank = {"zero_gradient": 0, "stuck": 0, "black_box_only": 0, "targets_missing": 0}
    return signs_of_masking(Diagnostics(**{"attacked": 100, **blank, "probed": 64, **counts}))


def test_what_counts_as_a_sign():
    assert signs() == []
    assert signs(blindly_ahead=9, blindly_broken=1) == []  # as on honest networks
    assert "got further on 17 of 64" in signs(blindly_ahead=17)[0]
    assert "broke 2 of 64" in signs(blindly_ahead=2, blindly_broken=2)[0]
    assert "no step raised the loss" in signs(stuck=3, blindly_ahead=2)[0]
    assert signs(stuck=100, zero_gradient=100) == []  # constant
    assert "zero on 6 of 100" in signs(zero_gradient=6, blindly_ahead=2)[0]
    assert "Square broke 1 image " in signs(black_box_only=1)[0]
    one, two = (Diagnostics(50, 1, 2, 3, 4, 5, 6, 7) for _ in range(2))
    assert one + two == Diagnostics(100, 2, 4, 6, 4, 10, 12, 14)
