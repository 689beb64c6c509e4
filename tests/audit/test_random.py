"""Audits and gates of networks that draw at random, and of those that step."""

import pytest
import torch
from support.console import SAMPLES
from torch import nn

from robaudit.audit import Plan, audit
from robaudit.audit.probes import AutoAttack, Average, Fast, Pgd, Square, Wci
from robaudit.checkpoints import load
from robaudit.gate.policy import read_policy
from robaudit.gate.run import Population, gate
from robaudit.types import ThreatModel

PGD = Pgd(steps=5)


class Noisy(nn.Module):
    """The network on images with noise, other noise on every call."""

    def __init__(self, net, sigma):
        super().__init__()
        self.net = net
        self.sigma = sigma

    def forward(self, x):
        return self.net((x + self.sigma * torch.randn_like(x)).clamp(0, 1))


class Step(nn.Module):
    def forward(self, x):
        return (x * 16).round() / 16


@pytest.fixture(scope="module")
def standard():
    return load(SAMPLES / "standard.pt", device="cpu")


def measured(network, few, eps, plan, **said):
    report = audit(network, few, ThreatModel("linf", eps), plan, **said).report
    return {m.name: m for m in report.measurements}, report


def test_where_nothing_moves_the_robust_accuracy_is_the_clean_one(standard, few):
    network = Noisy(standard, 0.3)
    torch.manual_seed(1)
    found, report = measured(network, few, 1e-6, Plan(probes=(PGD,)))
    assert found["accuracy.pgd"].value == found["accuracy.clean"].value
    assert found["accuracy.pgd"].doubts == []
    assert found["accuracy.pgd"].settings["samples"] == 10
    assert found["accuracy.clean"].settings == {"samples": 10}
    assert any("10 of its draws vote" in line for line in report.warnings)
    torch.manual_seed(2)
    again, _ = measured(network, few, 1e-6, Plan(probes=(PGD,)))
    assert {n: m.value for n, m in again.items()} == {n: m.value for n, m in found.items()}


def test_noise_hides_nothing_from_averaged_gradients(standard, few):
    found, _ = measured(Noisy(standard, 0.1), few, 0.15, Plan(probes=(PGD,)), samples=5)
    honest, _ = measured(standard, few, 0.15, Plan(probes=(PGD,)))
    assert found["accuracy.pgd"].settings["samples"] == 5
    assert found["accuracy.pgd"].value <= honest["accuracy.pgd"].value + 0.15
    assert "samples" not in honest["accuracy.pgd"].settings


@pytest.mark.slow
def test_every_attack_of_ours_is_of_the_voted_classifier(standard, few):
    few = few.taken(slice(8))
    plan = Plan(probes=(PGD, Square(queries=20), Fast()))
    found, _ = measured(Noisy(standard, 0.3), few, 1e-6, plan, samples=3)
    for name in ("pgd", "fast", "square"):
        assert found[f"accuracy.{name}"].value == pytest.approx(
            found["accuracy.clean"].value, abs=1 / 8
        )


def test_what_would_be_of_single_draws_is_refused(standard, few):
    plan = Plan(probes=(AutoAttack(), Wci(PGD), Average(PGD, perturbations=1)))
    found, _ = measured(Noisy(standard, 0.1), few, 0.1, plan, samples=2)
    for name in ("wci", "trace.total", "flatness.average"):
        assert "draws at random" in found[name].reason
    assert "--version rand" in found["accuracy.autoattack"].reason


def test_the_gate_decides_on_the_voted_classifier(standard, few, tmp_path):
    path = tmp_path / "policy.toml"
    path.write_text(
        '[gate]\ndata = "digits"\npreset = "quick"\n[gate.metrics."accuracy.pgd"]\nmin = 0.5\n'
        '[gate.metrics."accuracy.clean"]\nmin = 0.5\n'
    )
    policy = read_policy(path)
    population = Population(policy.suites[0], few, ThreatModel("linf", 1e-6))
    verdict = gate(Noisy(standard, 0.3), policy, [population], exhaustive=True)
    pgd, clean = verdict.decisions
    assert (pgd.outcome, clean.outcome) == ("pass", "pass")
    assert abs(pgd.value - clean.value) <= 1 / len(few)
    assert any("of its draws vote" in line for line in verdict.warnings)


def test_straight_through_a_step_finds_what_masked_gradients_hide(standard, few):
    network = nn.Sequential(Step(), standard)
    plan = Plan(probes=(Pgd(steps=10), Wci(PGD)))
    masked, _ = measured(network, few, 0.15, plan)
    assert masked["accuracy.pgd"].value > 0.9
    assert any("--straight-through 0" in text for text in masked["accuracy.pgd"].doubts)
    found, _ = measured(network, few, 0.15, plan, straight_through=["0"])
    assert found["accuracy.pgd"].value < 0.3
    assert found["accuracy.pgd"].doubts == []
    assert found["accuracy.pgd"].settings["straight_through"] == ["0"]
    assert "straight through" in found["wci"].reason
