"""What ``max_drop`` compares with, and first policies made from a report."""

import json
import tomllib

import numpy as np
import pytest
import torch
from support.console import ROBUST, STANDARD, robaudit
from support.gates import FAST

from robaudit.schema import Verdict


@pytest.fixture(scope="module")
def baseline(tmp_path_factory):
    folder = tmp_path_factory.mktemp("baseline") / "robust"
    ran = robaudit(
        "attack", ROBUST, "--n", 200, "--attack", "pgd", "--steps", 10, "--out", folder,
        "--device", "cpu", "-q",
    )  # fmt: skip
    assert ran.code == 0, ran.err
    return folder


DROP = 'n = 200\n[gate.metrics."accuracy.pgd"]\nmax_drop = 0.05\n'


def test_against_itself_nothing_drops_and_another_network_fails(gate, baseline):
    ran = gate(DROP, "--baseline", baseline, "--json")
    rule = Verdict.model_validate_json(ran.out).decisions[0]
    assert (ran.code, rule.outcome, rule.rule) == (0, "pass", "max_drop")
    assert 0 < rule.baseline < 1
    assert rule.interval.low >= rule.baseline - 0.05
    ran = gate(DROP, "--baseline", baseline, checkpoint=STANDARD)
    assert ran.code == 1
    assert f"of the baseline {rule.baseline:.3f}" in " ".join(ran.out.split())


def test_without_examples_the_baselines_number_is_known_all_the_same(gate, baseline, place):
    (place / "report.json").write_bytes((baseline / "report.json").read_bytes())
    ran = gate(DROP, "--baseline", "report.json", "--json")
    rule = Verdict.model_validate_json(ran.out).decisions[0]
    assert ran.code == 0
    assert "not known one by one" in rule.sentence


def _edited(place, baseline, edit=lambda report: None, arrays=lambda arrays: None):
    folder = place / "edited"
    folder.mkdir()
    report = json.loads((baseline / "report.json").read_text())
    edit(report)
    (folder / "report.json").write_text(json.dumps(report))
    found = dict(np.load(baseline / "examples.npz"))
    arrays(found)
    np.savez(folder / "examples.npz", **found)
    return folder


def _other_steps(report):
    for m in report["measurements"]:
        if m["name"] == "accuracy.pgd":
            m["settings"]["steps"] = 40


# A release on the other side of the change of clamp's gradient.
OTHER_TORCH = "2.13.0" if tuple(map(int, torch.__version__.split(".")[:2])) >= (2, 14) else "2.14.0"


def _blind_by_another_torch(report):
    report["provenance"]["edges"] = 1e-6
    report["provenance"]["versions"]["torch"] = OTHER_TORCH


def _gone(report):
    report["measurements"] = [m for m in report["measurements"] if m["name"] != "accuracy.pgd"]


@pytest.mark.parametrize(
    ("edit", "code", "names"),
    [
        (lambda r: r["threat"].update(eps=0.1), 2, ["linf 0.1,", "linf 0.15"]),
        (lambda r: r["threat"].update(norm="l2"), 2, ["l2 0.15", "linf 0.15"]),
        (lambda r: r["data"].update(sha256="0" * 64), 2, ["sha256 000000000000", "200 examples"]),
        (lambda r: r["data"].update(n=100), 2, ["100 examples", "200 examples"]),
        (lambda r: r.update(robaudit="0.0.1"), 2, ["robaudit 0.0.1", "attacks may differ"]),
        (_blind_by_another_torch, 2, [f"torch {OTHER_TORCH}", "exactly 0 or 1"]),
        (_other_steps, 2, ["steps 40", "steps 10"]),
        (_gone, 2, ["no accuracy.pgd"]),
        (lambda r: r.update(schema_version=2), 4, ["schema version 2", "this one reads 1"]),
    ],
)
def test_a_baseline_of_something_else_is_refused(edit, code, names, gate, baseline, place):
    ran = gate(DROP, "--baseline", _edited(place, baseline, edit))
    assert (ran.code, ran.out) == (code, "")
    for name in names:
        assert name in ran.err


@pytest.mark.parametrize(
    ("change", "names"),
    [
        (lambda a: a.update({"test.accuracy.pgd": ~a["test.accuracy.pgd"]}), ["disagree"]),
        (lambda a: a.pop("test.accuracy.pgd"), ["lacks test.accuracy.pgd"]),
        (lambda a: a.update({"test.index": a["test.index"] + 1}), ["other examples"]),
    ],
)
def test_outcomes_that_contradict_their_report_are_refused(change, names, gate, baseline, place):
    ran = gate(DROP, "--baseline", _edited(place, baseline, arrays=change))
    assert (ran.code, ran.out) == (4, "")
    for name in names:
        assert name in ran.err


def test_no_baseline_where_one_is_needed(gate):
    ran = gate(DROP)
    assert (ran.code, ran.out) == (2, "")
    assert "robaudit.toml:" in ran.err
    assert "--policy robaudit.toml --write-baseline baseline" in ran.err


TWO = """n = 60
[gate.metrics."accuracy.pgd"]
max_drop = 0.05
[gate.suites.l2]
norm = "l2"
eps = 0.5
[gate.suites.l2.metrics."accuracy.fast"]
max_drop = 0.0
[gate.suites.plain.metrics."accuracy.clean"]
min = 0.5
"""


def test_a_baseline_that_the_gate_wrote_is_one_that_it_takes(gate, place):
    ran = gate(TWO, "--write-baseline", "base")
    assert (ran.code, ran.out, ran.err) == (0, "", "")
    assert sorted(path.name for path in (place / "base").iterdir()) == ["default", "l2"]
    ran = gate(TWO, "--baseline", "base", "--exhaustive", "--json")
    decisions = Verdict.model_validate_json(ran.out).decisions
    drops = [one for one in decisions if one.rule == "max_drop"]
    assert [one.outcome for one in decisions] == ["pass"] * 3
    # On every example, the same network has the same number: nothing drops.
    assert all(one.value == one.baseline for one in drops)
    assert len(drops) == 2


@pytest.mark.parametrize(
    ("policy", "checkpoints", "said"),
    [(FAST, 1, "no max_drop"), (DROP, 2, "of one checkpoint")],
)
def test_a_baseline_that_cannot_be_written(policy, checkpoints, said, gate, place):
    ran = gate(policy, *[STANDARD] * (checkpoints - 1), "--write-baseline", "base")
    assert (ran.code, ran.out) == (2, "")
    assert said in ran.err
    assert not (place / "base").exists()


def test_a_policy_of_a_report_passes_on_its_own_checkpoint(gate, baseline, place):
    made = robaudit("gate", "--init", baseline)
    assert made.code == 0
    content = tomllib.loads(made.out)["gate"]
    assert "doubts" not in content
    assert tomllib.loads(made.out.replace('# doubts = "allow"', 'doubts = "allow"'))["gate"][
        "doubts"
    ]
    report = json.loads((baseline / "report.json").read_text())
    low = next(m for m in report["measurements"] if m["name"] == "accuracy.pgd")["interval"]["low"]
    assert low - 0.001 <= content["metrics"]["accuracy.pgd"]["min"] <= low
    assert (content["n"], content["eps"], content["preset"]) == (200, 0.15, "quick")
    (place / "made.toml").write_text(made.out)
    ran = robaudit("gate", ROBUST, "--policy", "made.toml", "-q")
    assert ran.code == 0, ran.out


def test_a_hostile_report_stays_in_its_comment(baseline, place):
    def edit(report):
        report["subject"]["source"] = 'x\n[gate]\n\x1b[31m"'
        report["measurements"][0]["doubts"] = ["x\n[evil]"]
        report["data"]["name"] = 'a"\n[evil]\nb = "'

    made = robaudit("gate", "--init", _edited(place, baseline, edit))
    content = tomllib.loads(made.out)
    assert list(content) == ["gate"]
    assert content["gate"]["data"] == 'a"\n[evil]\nb = "'
    assert "\x1b" not in made.out
