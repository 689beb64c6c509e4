"""Who runs AutoAttack, robaudit or its library, is said, and is never mixed up."""

import sys
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from robaudit.audit import Plan, audit
from robaudit.audit.plan import planned, preset
from robaudit.audit.probes import AutoAttack
from robaudit.errors import UsageError
from robaudit.gate.baseline import Baseline, before
from robaudit.gate.initial import initial_policy
from robaudit.measures import find
from robaudit.report.compare import compare
from robaudit.report.compare_outcomes import Audited
from robaudit.report.words import attack
from robaudit.types import Examples, ThreatModel

THREAT = ThreatModel("linf", 0.9)  # APGD breaks all, so that no attack takes long
ENGINES = {"native": "robaudit", "reference": "pyautoattack"}


def measured(engine, version="standard"):
    """A linear network of two classes."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, 2))
    x = torch.rand(6, 1, 4, 4)
    with torch.no_grad():
        y = net(x).argmax(1)
    examples = Examples(x=x, y=y, index=torch.arange(6), name="made", split="test", sha256="a")
    return audit(net, examples, THREAT, Plan(probes=(AutoAttack(version, engine=engine),)))


@pytest.fixture(scope="module")
def reports():
    return {engine: measured(engine).report for engine in ENGINES}


def test_standard_has_robaudits_own_and_paper_the_librarys(reports):
    for name, engine in (("standard", "native"), ("paper", "reference")):
        probe = preset(name).get(AutoAttack)
        assert probe.engine == engine
        assert probe.described(THREAT)["engine"] == ENGINES[engine]
    assert planned("standard", ["autoattack"]) == preset("standard")
    named = {
        engine: attack(report.get("accuracy.autoattack")) for engine, report in reports.items()
    }
    assert named == {"native": "AutoAttack (native)", "reference": "AutoAttack"}


def test_without_the_library_robaudits_own_runs_and_the_librarys_says_what_is_missing(monkeypatch):
    for name in ("pyautoattack", "autoattack"):
        monkeypatch.setitem(sys.modules, name, None)
    assert measured("native").report.get("accuracy.autoattack").status == "ok"
    lost = measured("reference").report.get("accuracy.autoattack")
    assert lost.status == "failed"
    assert "not installed" in lost.reason
    assert "--engine native" in lost.reason


def test_their_difference_is_not_taken(reports):
    found = compare(*(Audited(report, {}) for report in reports.values()))
    row = next(row for row in found.differences if row.name == "accuracy.autoattack")
    assert (row.how, row.value) == ("not comparable", None)
    assert "engine robaudit and pyautoattack" in row.reason


def test_the_librarys_is_no_baseline_of_a_gate(reports):
    rule = SimpleNamespace(line=5, metric="accuracy.autoattack")
    report = reports["reference"]
    native = planned("paper", ["autoattack"]).get(AutoAttack)
    with pytest.raises(UsageError) as refused:
        before(
            rule, [Baseline("main", report, None)], report.data, report.threat, None, None,
            lambda stage: native.described(THREAT), "robaudit.toml",
        )  # fmt: skip
    assert find(rule.metric).stages[-1] == "autoattack"
    assert "engine pyautoattack" in str(refused.value)
    assert "--preset standard" in refused.value.advice


def test_a_first_policy_says_that_the_gate_runs_another(reports):
    for engine, report in reports.items():
        first = initial_policy(report)
        assert '[gate.metrics."accuracy.autoattack"]' in first
        assert ("robaudit's own code" in first) == (engine == "reference")
    other = initial_policy(measured("native", "rand").report)
    assert "accuracy.autoattack" not in other.partition("[gate]")[2]
