"""Attacks on rows give what an audit of the whole gives, whichever rows go together."""

import pytest
import torch
from support.console import ROBUST
from torch import nn

from robaudit.audit import Plan
from robaudit.audit.context import Context
from robaudit.audit.probes import AutoAttack, Cw, Fast, Pgd, Square
from robaudit.audit.rows import RowAttacks
from robaudit.audit.run import audit
from robaudit.checkpoints import load
from robaudit.data import load_examples
from robaudit.errors import NotMeasuredError
from robaudit.types import ThreatModel

THREAT = ThreatModel("linf", 0.2)
ROBUST_SETTINGS = {"pgd": Pgd(5, 2), "cw": Cw(5), "fast": Fast()}
LINEAR_SETTINGS = {"square": Square(100), "autoattack": AutoAttack(engine="native")}


@pytest.fixture(scope="module")
def few():
    return load_examples("digits", n=48)


def linear():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    centres = load_examples("digits", split="train", n=500)
    means = torch.stack([centres.x[centres.y == k].mean(0).flatten() for k in range(10)])
    net[1].weight.data, net[1].bias.data = means, -means.square().sum(1) / 2
    return net


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "settings", "threat"),
    [
        (lambda: load(ROBUST, device="cpu"), ROBUST_SETTINGS, THREAT),
        (linear, LINEAR_SETTINGS, ThreatModel("linf", 0.02)),
    ],
    ids=["robust", "linear"],
)
def test_in_any_company_the_outcomes_are_the_audits(make, settings, threat, few):
    model = make()
    whole = audit(model, few, threat, Plan(n=48, probes=tuple(settings.values())), seed=3)
    attacks = RowAttacks(Context(model, {"test": few}, threat, 3, "auto"), settings)
    clean = attacks.stands("clean", torch.arange(48))
    assert torch.equal(clean, whole.outcomes["test.accuracy.clean"])
    order = torch.randperm(48, generator=torch.Generator().manual_seed(0))
    for name in settings:
        found = torch.zeros(48, dtype=torch.bool)
        for rows in (order[:7], order[7:]):
            standing = rows[clean[rows]]
            found[standing] = attacks.stands(name, standing)
        wanted = whole.outcomes[f"test.accuracy.{name}"]
        assert torch.equal(found, wanted)
        assert 0 < int(wanted.sum()) < 48, "else this shows little"
        assert attacks.described(name) == whole.report.get(f"accuracy.{name}").settings


def test_what_the_network_raises_is_a_reason(few):
    class Fragile(nn.Module):
        def forward(self, x):
            raise RuntimeError("not today\nnor tomorrow")

    attacks = RowAttacks(Context(Fragile(), {"test": few}, THREAT, 0, "auto"), ROBUST_SETTINGS)
    with pytest.raises(
        NotMeasuredError,
        match=r"^the network raised RuntimeError: not today \(test_rows\.py:\d+\)$",
    ):
        attacks.stands("clean", torch.arange(4))
