"""Whatever an interpreter prints of a result fits a screen, and names what is there."""

import dataclasses

import pytest
import torch
from support.console import ROBUST
from torch import nn

import robaudit as ra
from robaudit.attacks import pgd
from robaudit.audit import Plan, audit
from robaudit.audit.probes import Average, Hessian, Pgd, Wci
from robaudit.brief import brief
from robaudit.curvature import pac_bayes, spectrum, top_layer_trh, wci
from robaudit.flatness import around, average, landscape, random_direction, worst


@pytest.fixture(scope="module")
def results():
    """Of a network of forty layers on forty images."""
    torch.manual_seed(0)
    deep = [part for _ in range(40) for part in (nn.Linear(64, 64), nn.ReLU())]
    net, threat = nn.Sequential(nn.Flatten(), *deep, nn.Linear(64, 10)), ra.ThreatModel("linf", 0.1)
    digits = ra.load_examples("digits", n=40)
    x, y = digits.x, digits.y
    lines = [around(net, random_direction(net))]
    plan = Plan(
        probes=(
            Pgd(1),
            Wci(Pgd(1)),
            Hessian(Pgd(1), 8, steps=4, density_steps=2),
            Average(Pgd(1), perturbations=2),
        ),
        radii=(0.01, 0.02),
    )
    done = audit(net, digits, threat, plan)
    return {
        "examples": digits,
        "classifier": ra.load(ROBUST, device="cpu"),
        "attacked": pgd(net, x, y, threat, steps=1),
        "wci": (index := wci(net, x, y)),
        "traces": index.traces,
        "spectrum": spectrum(net, x[:8], y[:8], steps=4, density_steps=2),
        "pac-bayes": pac_bayes(net, x, y),
        "top layer": top_layer_trh(net, x, x, y),
        "average": average(net, x, y, threat, steps=1, perturbations=30),
        "worst": worst(net, x, y, threat, steps=1, restarts=1, passes=1),
        "landscape": landscape(net, lines, torch.linspace(-1, 1, 3), x, y, threat),
        "audit": done,
        "report": done.report,
        "measurement": done.report.get("wci"),
        "density": done.report.get("hessian.trace"),
    }


def test_they_fit_a_screen(results):
    for name, result in results.items():
        for text in (repr(result), str(result)):
            rows = text.splitlines()
            assert len(rows) <= 40, name
            assert max(len(row) for row in rows) <= 210, name


def test_every_field_is_named(results):
    for name in ("examples", "attacked", "wci", "traces", "spectrum", "average", "worst"):
        text = repr(results[name])
        assert text.startswith(f"{type(results[name]).__name__}(")
        for field in dataclasses.fields(results[name]):
            assert f"{field.name}=" in text
    assert "value=" in repr(results["wci"])
    assert f"{results['wci'].value:.6g}" in repr(results["wci"])
    report = results["report"]
    assert f"wci test: {report.get('wci').value:.6g}" in repr(report)
    assert "parameters" in repr(results["classifier"])


def test_short_results_stay_on_a_line_and_are_what_they_were():
    @dataclasses.dataclass(frozen=True)
    class Small:
        value: float
        names: tuple[str, ...]
        flag: bool = False
        __repr__ = brief

    assert repr(Small(0.5, ("a",))) == "Small(value=0.5, names=('a',), flag=False)"
