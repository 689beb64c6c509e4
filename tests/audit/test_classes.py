"""Classes: counts by hand, the worst of them, and where adversarial images go."""

import csv
import io
from dataclasses import replace

import numpy as np
import pytest
import torch
from support import console
from support.linear import distances, nearest_mean
from torch import nn

from robaudit.audit import Plan, audit
from robaudit.audit.plan import planned, preset
from robaudit.audit.probes import Classes, Fast, Pgd, Wci
from robaudit.data import load_examples
from robaudit.gate.policy import read_policy
from robaudit.gate.run import Population, gate
from robaudit.report import render
from robaudit.report.class_tables import classes_csv, confusion_table
from robaudit.report.html.report_page import to_html
from robaudit.report.pictures.classes import classes as picture
from robaudit.statistics import clopper_pearson
from robaudit.types import Examples, ThreatModel

# One start of a pixel between two borders may climb to the farther one.
PGD = Pgd(steps=10, restarts=4)
THREAT = ThreatModel("linf", 0.1)


class Thresholds(nn.Module):
    """Of one pixel: classes about 0.1, 0.2 and 0.5, with borders at 0.15 and 0.35; one far off."""

    def forward(self, x):
        value = x.flatten(1)[:, :1]
        centres = torch.tensor([0.1, 0.2, 0.5, 5.0])
        return -((value - centres) ** 2) * 50


def points(labels, values, **more):
    x = torch.tensor(values).reshape(-1, 1, 1, 1)
    return Examples(
        x, torch.tensor(labels), torch.arange(len(x)), "points", "test", "0" * 64, **more
    )


@pytest.fixture(scope="module")
def by_hand():
    # Within 0.1 classes 0 and 1 are broken, and class 2 stands but for what is misclassified.
    labels = [0, 0, 0, 0, 1, 1, 1, 2, 2, 2, 2, 2]
    values = [0.1, 0.1, 0.1, 0.1, 0.2, 0.2, 0.26, 0.5, 0.5, 0.6, 0.3, 0.7]
    names = ("near", "middle", "far", "never")
    examples = points(labels, values, classes=4, class_names=names)
    return audit(Thresholds(), examples, THREAT, Plan(probes=(PGD, Classes())))


def test_counts_by_hand(by_hand):
    found = by_hand.report.get("accuracy.worst_class")
    rows = {row["label"]: row for row in found.details["classes"]}
    counts = {label: (row["n"], row["clean"], row["robust"]) for label, row in rows.items()}
    assert counts == {0: (4, 1.0, 0.0), 1: (3, 1.0, 0.0), 2: (5, 0.8, 0.8)}
    assert (found.value, found.details["class"], found.details["name"]) == (0.0, 0, "near")
    for row, count in ((rows[0], 0), (rows[1], 0), (rows[2], 4)):
        wanted = clopper_pearson(count, row["n"], 1 - 0.05 / 3)
        assert (row["low"], row["high"]) == (wanted.low, wanted.high)
    assert found.interval.low == 0
    assert found.interval.high == min(row["high"] for row in rows.values())
    assert found.interval.level == 0.95
    assert found.settings["attacks"] == ["pgd"]


def test_where_adversarial_images_go_by_hand(by_hand):
    # Of class 1, 0.26 is 0.09 from class 2's border at 0.35, the others 0.05 from class 0's.
    found = by_hand.report.get("accuracy.worst_class").details
    assert found["confusion"] == [[0, 1, 4], [1, 0, 2], [1, 2, 1]]
    table = confusion_table(by_hand.report)
    assert [[cell.text for cell in row] for row in table.rows] == [
        ["0 near", "", "4", ""],
        ["1 middle", "2", "", "1"],
        ["2 far", "", "", ""],
    ]
    rows = list(csv.DictReader(io.StringIO(classes_csv(by_hand.report))))
    assert [(row["name"], row["n"], row["taken_for"]) for row in rows] == [
        ("near", "4", "1:4"), ("middle", "3", "0:2 2:1"), ("far", "5", ""),
    ]  # fmt: skip


def test_a_class_without_examples_is_named(by_hand):
    found = by_hand.report.get("accuracy.worst_class")
    assert found.details["absent"] == [3]
    assert found.warnings == ["no test example of class 3 (never): nothing is known of it"]


def test_every_view_has_them(by_hand):
    for format in ("table", "md"):
        shown = " ".join(render([by_hand.report], format, 150).split())
        assert "Broken images are taken for" in shown
        assert "0 near (2 of 3)" in shown
        assert "The worst class is 0 near: 0.0 %" in shown
        assert "nothing is known of it" in shown
    page = to_html(by_hand.report)
    for text in ("Class by class", "Where adversarial images go", "1 middle"):
        assert text in page
    assert picture(by_hand.report) is not None


def test_many_classes_are_cut(by_hand):
    report = by_hand.report
    found = report.get("accuracy.worst_class")
    row = found.details["classes"][0]
    many = [{**row, "label": at, "name": f"class {at}", "robust": 1 - at / 50} for at in range(50)]
    details = {"classes": many, "confusion": [[at, at + 1, 1] for at in range(49)]}
    changed = found.model_copy(update={"details": details})
    own = [changed if m is found else m for m in report.measurements]
    wide = report.model_copy(update={"measurements": own})
    assert confusion_table(wide) is None
    screen = render([wide], "table", 150)
    assert "40 classes that are no worse are not listed." in screen
    assert "49 class 49" in screen
    assert "class 9 " not in screen
    assert len(classes_csv(wide).splitlines()) == 51
    assert picture(wide).get_axes()[0].get_ylim() == (29.5, -0.5)


@pytest.fixture(scope="module")
def net():
    return nearest_mean()


@pytest.fixture(scope="module")
def digits():
    return load_examples("digits", n=60)


def test_robust_is_what_all_attacks_left_whatever_their_order(net, digits):
    weak = Pgd(steps=1, step_over_eps=0.1)
    done = audit(net, digits, THREAT, Plan(probes=(Classes(), weak, Fast())))
    both = done.outcomes["test.accuracy.pgd"] & done.outcomes["test.accuracy.fast"]
    found = done.report.get("accuracy.worst_class")
    assert found.settings["attacks"] == ["pgd", "fast"]
    for row in found.details["classes"]:
        mine = digits.y == row["label"]
        assert (row["n"], row["robust"]) == (int(mine.sum()), both[mine].double().mean().item())
    assert found.value == min(row["robust"] for row in found.details["classes"])
    broken = done.outcomes["test.accuracy.clean"] & ~both
    counts = found.details["confusion"]
    assert sum(count for _, _, count in counts) == int(broken.sum())
    assert all(label != to for label, to, _ in counts)


def test_without_an_attack_the_fast_tier_runs(net, digits):
    done = audit(net, digits, THREAT, Plan(probes=(Classes(),)))
    fast = audit(net, digits, THREAT, Plan(probes=(Fast(),))).outcomes["test.accuracy.fast"]
    found = done.report.get("accuracy.worst_class")
    assert found.settings["attacks"] == ["fast"]
    assert [row["robust"] for row in found.details["classes"]] == [
        fast[digits.y == row["label"]].double().mean().item() for row in found.details["classes"]
    ]
    assert int(done.adversarial.broken.sum()) == int((~fast).sum()) - int(
        (~done.outcomes["test.accuracy.clean"]).sum()
    )


def test_the_training_split_has_its_own(net, digits):
    train = load_examples("digits", split="train", n=60)
    done = audit(net, digits, THREAT, Plan(probes=(PGD, Classes())), train=train)
    found = done.report.get("accuracy.worst_class", "train")
    robust = done.outcomes["train.accuracy.pgd"]
    worst = min(robust[train.y == label].double().mean().item() for label in range(10))
    assert found.value == worst
    assert "confusion" not in found.details
    assert "Classes, train examples" in render([done.report], "md")


def test_copies_of_an_image_widen_nothing_but_by_images(net, digits):
    twice = torch.arange(60).repeat_interleave(2)
    copied = replace(digits.taken(twice), index=torch.arange(120), groups=twice)
    plan = Plan(probes=(PGD, Classes()))
    one = audit(net, digits, THREAT, plan).report.get("accuracy.worst_class")
    two = audit(net, copied, THREAT, plan).report.get("accuracy.worst_class")
    assert two.interval.high - two.interval.low > 0.8 * (one.interval.high - one.interval.low)


def test_it_is_in_every_preset_and_in_the_attacks_stage():
    for name in ("quick", "standard", "paper"):
        plan = preset(name)
        assert plan.get(Classes) == Classes()
        assert Classes() in dict(plan.stages())["attacks"].probes
    assert planned("quick", ["classes"]).get(Classes) == Classes(fast=True)
    plan = Plan(probes=(Classes(), PGD, Wci(PGD)))
    assert [probe.name for probe in plan.in_order] == ["pgd", "classes", "wci"]


def test_doubts_of_the_strongest_attack_are_its_own(by_hand):
    from robaudit.audit.doubts import inherited

    measurements = [
        m.model_copy(update={"doubts": ["masked"]}) if m.name == "accuracy.pgd" else m
        for m in by_hand.report.measurements
    ]
    found = {m.name: m.doubts for m in inherited(measurements)}
    assert found["accuracy.worst_class"] == ["masked"]
    assert found["accuracy.clean"] == []


@pytest.mark.parametrize(("least", "outcome"), [(0.01, "pass"), (0.9, "fail")])
def test_a_gate_rules_on_it(least, outcome, tmp_path):
    # Three classes of forty: all of the worst are robust to a tiny radius, none to a large one.
    labels = [0, 1, 2] * 40
    examples = points(labels, [(0.1, 0.2, 0.5)[label] for label in labels], classes=3)
    path = tmp_path / "robaudit.toml"
    rule = f'[gate]\ndata = "digits"\n[gate.metrics."accuracy.worst_class"]\nmin = {least}'
    path.write_text(rule)
    policy = read_policy(path)
    threat = ThreatModel("linf", 0.01 if outcome == "pass" else 0.1)
    verdict = gate(Thresholds(), policy, [Population(policy.suites[0], examples, threat)])
    assert verdict.decisions[0].outcome == outcome


def test_the_command_writes_classes_with_their_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    digits = load_examples("digits", n=40)
    names = np.array([f"digit {label}" for label in range(10)])
    np.savez("own.npz", x=digits.x.numpy(), y=digits.y.numpy(), class_names=names)
    words = ("audit", console.ROBUST, "--preset", "quick", "--data", "own.npz", "--eps", "0.15")
    ran = console.robaudit(*words, "--quiet", "--no-gap", "--out", "out")
    assert ran.code == 0, ran.err
    assert "The worst class is" in ran.out
    rows = list(csv.DictReader((tmp_path / "out" / "classes.csv").open(encoding="utf-8")))
    assert {row["name"] for row in rows} <= set(names.tolist())
    assert sum(int(row["n"]) for row in rows) == 40


def test_distances_tell_which_classes_are_robust(net, digits):
    """The closed form of a linear network, class by class."""
    near = replace(digits, x=0.3 + 0.4 * digits.x)
    threat = ThreatModel("linf", 0.01)
    done = audit(net, near, threat, Plan(probes=(Fast(), Classes())))
    exact = distances(net, near.x, near.y, "linf")
    clear = (exact - threat.eps).abs() > 1e-4
    assert clear.all()
    for row in done.report.get("accuracy.worst_class").details["classes"]:
        mine = near.y == row["label"]
        assert row["robust"] == (exact[mine] > threat.eps).double().mean().item()
