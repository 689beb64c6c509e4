"""The gate on the command line: exit codes, sentences, files and refusals."""

import json

import numpy as np
import pytest
import torch
from support.console import ROBUST, STANDARD, robaudit
from support.gates import FAST, HEAD

from robaudit.data import load_examples
from robaudit.schema import Verdict


@pytest.mark.parametrize(
    ("checkpoint", "policy", "code", "said"),
    [
        (ROBUST, FAST, 0, "✓ accuracy.fast >= 0.4: PASS."),
        (STANDARD, FAST.replace("fast", "autoattack"), 1, "✗ accuracy.autoattack >= 0.4: FAIL."),
        (ROBUST, "max_n = 64\n" + FAST.replace("fast", "pgd").replace("0.4", "0.87"), 3,
         "? accuracy.pgd >= 0.87: INCONCLUSIVE."),
    ],
)  # fmt: skip
def test_passed_failed_and_inconclusive(checkpoint, policy, code, said, gate):
    ran = gate(policy, checkpoint=checkpoint)
    assert (ran.code, ran.err) == (code, "")
    flat = " ".join(ran.out.split())
    assert said in flat
    assert "of 64 examples looked at withstood PGD-10" in flat
    assert "with error at most 5 %, between" in flat
    assert flat.endswith(f"{said[0]} Gate {['passed', 'failed', '', 'inconclusive'][code]}: "
                         f"{int(code == 0)} of 1 rules passed.")  # fmt: skip


def test_a_warning_fails_nothing_and_an_undecidable_number_is_inconclusive(gate):
    rule = '[gate.metrics."accuracy.clean"]\nmin = 0.5\n[gate.metrics."loss.clean"]\nmax = 1e-9\n'
    assert gate(rule).code == 1
    ran = gate(rule + 'severity = "warning"\n', "--json")
    assert ran.code == 0
    verdict = Verdict.model_validate_json(ran.out)
    clean, loss = verdict.decisions
    assert (verdict.outcome, clean.outcome, loss.outcome) == ("pass", "pass", "fail")
    assert (clean.line, clean.examples, clean.population) == (5, 64, 500)
    assert clean.interval.low <= clean.value <= clean.interval.high
    assert loss.interval.level == pytest.approx(0.9)
    inside = gate(rule.replace("1e-9", repr(loss.value)), "--json")
    assert (inside.code, Verdict.model_validate_json(inside.out).outcome) == (3, "inconclusive")


def test_several_suites_checkpoints_and_every_file(gate, place, monkeypatch):
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(place / "step.md"))
    (place / "step.md").write_text("before\n")
    policy = (
        "[gate.suites.strong]\neps = 0.3\n"
        '[gate.suites.strong.metrics."accuracy.pgd"]\nmin = 0.05\nmax = 0.97\n'
        '[gate.suites.clean.metrics."accuracy.clean"]\nmin = 0.5\n'
    )
    ran = gate(policy, STANDARD, "--junit", "j.xml", "--sarif", "s.sarif", "--out", "out", "--json")
    assert ran.code == 1
    found = [Verdict.model_validate(one) for one in json.loads(ran.out)]
    assert [verdict.outcome for verdict in found] == ["pass", "fail"]
    assert [suite.name for suite in found[0].suites] == ["strong", "clean"]
    assert [suite.threat.eps for suite in found[0].suites] == [0.3, 0.15]
    assert json.loads((place / "out" / "verdicts.json").read_text()) == json.loads(ran.out)
    pages = sorted(path.name for path in (place / "out").glob("*.html"))
    assert pages == ["robust.html", "standard.html"]
    assert "<testsuites" in (place / "j.xml").read_text()
    assert json.loads((place / "s.sarif").read_text())["version"] == "2.1.0"
    step = (place / "step.md").read_text()
    assert step.startswith("before\n")
    assert "accuracy.pgd" in step


def test_a_checkpoint_that_cannot_be_opened_is_not_missing_among_the_others(gate, place):
    (place / "torn.pt").write_bytes(b"PK\x03\x04 torn")
    ran = gate(
        '[gate.metrics."accuracy.clean"]\nmin = 0.5\n', "torn.pt", "--junit", "j.xml", "--json"
    )
    assert ran.code == 4
    assert "torn.pt" in ran.err
    fine, torn = (Verdict.model_validate(one) for one in json.loads(ran.out))
    assert (fine.outcome, torn.outcome) == ("pass", "inconclusive")
    assert torn.subject.source == "torn.pt"
    assert torn.decisions[0].reason in ran.err
    assert (place / "j.xml").read_text().count("<testsuite ") == 2


def test_exhaustive_agrees_with_the_attack_command(gate, place):
    ran = gate("n = 100\n" + '[gate.metrics."accuracy.pgd"]\nmin = 0.1\n', "--exhaustive", "--json")
    rule = Verdict.model_validate_json(ran.out).decisions[0]
    audited = robaudit(
        "attack", ROBUST, "--n", 100, "--attack", "pgd", "--steps", 10, "--json", "-q"
    )
    values = {m["name"]: m["value"] for m in json.loads(audited.out)["measurements"]}
    assert rule.value == values["accuracy.pgd"]
    assert rule.interval.low == rule.interval.high == rule.value
    assert "of all 100" in rule.sentence


MASKED = """
import torch
from torch import nn


class Masked(nn.Module):
    \"""Rounds its input: as accurate as the linear layer behind it, and no more robust.\"""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(64, 10)

    def forward(self, x):
        return self.layer(((x * 16).round() / 16 + 0 * x).flatten(1))
"""


def test_a_number_in_doubt_passes_nothing_unless_the_policy_allows_it(gate, place):
    train = load_examples("digits", split="train", n=500)
    means = torch.stack([train.x[train.y == k].mean(0).flatten() for k in range(10)])
    weights = {"layer.weight": means, "layer.bias": -means.square().sum(1) / 2}
    torch.save(weights, place / "masked.pt")
    (place / "masked.py").write_text(MASKED)
    words = ("--arch", "masked.py:Masked", "--normalize", "none", "--json")

    def decided(policy):
        ran = gate(policy, *words, checkpoint="masked.pt")
        return ran.code, Verdict.model_validate_json(ran.out)

    rule = '[gate.metrics."accuracy.pgd"]\nmin = 0.5\n'
    code, verdict = decided("n = 64\n" + rule)
    (one,) = verdict.decisions
    assert (code, one.outcome) == (3, "inconclusive")
    assert "masked" in one.reason
    code, verdict = decided('n = 64\ndoubts = "allow"\n' + rule)
    assert (code, verdict.decisions[0].outcome) == (0, "pass")
    assert "masked" in verdict.decisions[0].doubts[0]
    # What is not reached even so is failed.
    assert decided("n = 64\n" + rule.replace("0.5", "0.999"))[0] == 1
    # Clean accuracy rests on no attack.
    clean = '[gate.metrics."accuracy.clean"]\nmin = 0.5\n'
    assert decided("n = 64\n" + clean)[0] == 0


@pytest.mark.parametrize(
    ("words", "names"),
    [
        ((), ["no checkpoint"]),
        ((ROBUST, "--policy", "none.toml"), ["none.toml", "no policy none.toml"]),
        ((ROBUST, "--policy", "bad.toml"), ["bad.toml:3", "accuracy.autoatack", "autoattack"]),
        ((ROBUST, "--policy", "good.toml", "--junit", "bad.toml/x"), ["cannot write", "bad.toml"]),
        (("--init", "nowhere"), ["no report at nowhere"]),
    ],
)
def test_usage(words, names, place):
    (place / "bad.toml").write_text(
        '[gate]\ndata = "digits"\n[gate.metrics."accuracy.autoatack"]\nmin = 1'
    )
    (place / "good.toml").write_text(HEAD + FAST)
    ran = robaudit("gate", *words)
    assert (ran.code, ran.out) == (2, "")
    for name in names:
        assert name in ran.err


@pytest.mark.parametrize(
    ("data", "code", "names"),
    [
        ('data = "digit"\n', 2, ["robaudit.toml:1: ", "'digit'", "did you mean 'digits'?"]),
        ('data = "digits"\nn = 501\n', 4, ["robaudit.toml:1: ", "500", "501"]),
        ('data = "mine.npz"\nnorm = "l2"\n', 2, ["robaudit.toml:1: ", "l2", 'eps = "8/255"']),
    ],
)
def test_a_policy_of_data_that_are_not_there(data, code, names, place):
    np.savez(place / "mine.npz", x=np.zeros((600, 1, 8, 8), np.float32), y=np.zeros(600, int))
    (place / "robaudit.toml").write_text("[gate]\n" + data + FAST)
    ran = robaudit("gate", ROBUST)
    assert (ran.code, ran.out) == (code, "")
    for name in names:
        assert name in ran.err


def test_gaps_come_from_the_training_split(gate):
    ran = gate('n = 64\n[gate.metrics."gap.loss"]\nmax = 50\nmin = 10\n', "--json")
    assert [rule.outcome for rule in Verdict.model_validate_json(ran.out).decisions] == [
        "fail", "pass",
    ]  # fmt: skip


def test_a_network_that_breaks_under_attack_is_inconclusive_and_the_rest_is_decided(place, linear):
    """The nearest class mean, but NaN off the data's grey levels, so that PGD cannot be run."""
    train = load_examples("digits", split="train", n=500)
    means = torch.stack([train.x[train.y == k].mean(0).flatten() for k in range(10)])
    torch.save({"1.weight": means, "1.bias": -means.square().sum(1) / 2}, linear)
    (place / "robaudit.toml").write_text(
        HEAD + '[gate.metrics."accuracy.pgd"]\nmin = 0.5\n'
        '[gate.metrics."accuracy.clean"]\nmin = 0.6\n[gate.metrics."loss.robust"]\nmax = 1\n'
    )
    ran = robaudit(
        "gate", linear, "--arch", "net.py:fragile", "--normalize", "none", "--json", "-q"
    )
    assert ran.err == ""
    verdict = Verdict.model_validate_json(ran.out)
    pgd, clean, loss = verdict.decisions
    assert [rule.outcome for rule in (pgd, clean, loss)] == ["inconclusive", "pass", "inconclusive"]
    assert "not finite" in pgd.reason
    assert "not finite" in loss.reason
    assert ran.code == 3


@pytest.mark.parametrize("what", ["report", "policy", "verdict"])
def test_schemas(what):
    import jsonschema

    jsonschema.Draft202012Validator.check_schema(json.loads(robaudit("schema", what).out))
