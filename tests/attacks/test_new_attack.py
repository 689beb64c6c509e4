"""The attack that CONTRIBUTING.md shows: one file of numerics, one of a probe."""

import importlib
import re
import sys
from pathlib import Path

import pytest
import torch
from support.attacks import THREATS, distance, examples, network
from support.console import ROBUST

import robaudit as ra

GUIDE = Path(__file__).parents[2] / "CONTRIBUTING.md"


@pytest.fixture
def modules(tmp_path, monkeypatch):
    """The files of the section "A new attack", imported from a folder of their own."""
    section = GUIDE.read_text().split("## A new attack", 1)[1].split("\n## ", 1)[0]
    numerics, probe = re.findall(r"```python title=.*?\n(.*?)```", section, re.DOTALL)
    probe = probe.replace("robaudit.attacks.mifgsm", "toy_mifgsm")
    for name, text in {"toy_mifgsm": numerics, "toy_mifgsm_probe": probe}.items():
        (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    names = "toy_mifgsm", "toy_mifgsm_probe"
    yield tuple(importlib.import_module(name) for name in names)
    for name in names:
        del sys.modules[name]


@pytest.mark.parametrize("threat", THREATS, ids=lambda threat: threat.norm)
def test_its_points_are_where_they_should_be_and_break_what_is_said(modules, threat):
    model = network()
    x, y = examples(model)
    found = modules[0].mifgsm(model, x, y, threat)
    assert float(distance(found.broken_x, x, threat.norm).max()) <= threat.eps * (1 + 1e-5)
    with torch.no_grad():
        assert torch.equal(model(found.broken_x).argmax(1) == y, found.robust)
    assert 0 < int(found.robust.sum()) < int(found.correct.sum())
    assert found.forwards == len(x) * (1 + 11)


def test_its_probe_is_measured_beside_the_others(modules):
    model, few = ra.load(ROBUST, device="cpu"), ra.load_examples("digits", n=64)
    threat = ra.ThreatModel("linf", 0.15)
    report = ra.run_audit(model, few, threat, preset="quick", probes=[modules[1].MiFgsm()])
    found = report.get("accuracy.mifgsm")
    assert report.get("accuracy.clean").value > found.value > 0
    assert found.settings["steps"] == 10
    assert found.interval is not None
