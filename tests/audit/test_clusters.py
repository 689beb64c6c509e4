"""Data where one image appears many times: as often copied, as little known."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from support.console import SAMPLES, robaudit

from robaudit.audit import Plan, audit
from robaudit.audit.probes import Pgd
from robaudit.data import load_examples
from robaudit.errors import DataError, UsageError
from robaudit.statistics import clopper_pearson, mean, newcombe

COPIES = 3


def copied(examples):
    """Each image as often, at places of its own, so that every copy is attacked in its own way."""
    rows = torch.arange(len(examples)).repeat_interleave(COPIES)
    return replace(
        examples, x=examples.x[rows], y=examples.y[rows], index=examples.index[rows],
        groups=examples.index[rows],
    )  # fmt: skip


def ends(measurement):
    return measurement.interval.low, measurement.interval.high


def test_copies_leave_error_bars_as_they_were(robust, few, train, threat):
    """Copies of one index are attacked alike: all outcomes are, and so are intervals."""
    plan = Plan(probes=(Pgd(steps=2),), radii=(threat.eps / 2,))
    once = audit(robust, few, threat, plan, train=train)
    many = audit(robust, copied(few), threat, plan, train=copied(train))
    for name in ("accuracy.clean", "accuracy.pgd", "gap.error"):
        one, other = (found.report.get(name) for found in (once, many))
        assert other.value == pytest.approx(one.value)
        assert ends(other) == pytest.approx(ends(one))
        assert "clustered in" in other.interval.method
    for name in ("loss.clean", "loss.robust", "gap.loss"):
        one, other = (found.report.get(name) for found in (once, many))
        assert other.standard_error == pytest.approx(one.standard_error, rel=1e-5)
        assert other.interval.method == f"t, {len(few) - 1} degrees"
    for one, other in zip(
        *(found.report.get("accuracy.pgd").details["curve"] for found in (once, many)), strict=True
    ):
        assert (other["low"], other["high"]) == pytest.approx((one["low"], one["high"]))
    assert any("are 32 images" in warning for warning in many.report.warnings)
    assert not any("images: error" in warning for warning in once.report.warnings)


def test_by_hand(robust, few, train, threat):
    found = audit(robust, copied(few), threat, Plan(probes=(Pgd(steps=2),)), train=train)
    right = found.outcomes["test.accuracy.pgd"][::COPIES]
    k = int(right.sum())
    pgd = found.report.get("accuracy.pgd")
    want = clopper_pearson(k, len(few))
    assert ends(pgd) == pytest.approx((want.low, want.high))
    losses = found.outcomes["test.loss.robust"][::COPIES].double().numpy()
    error = found.report.get("loss.robust").standard_error
    assert error == pytest.approx(mean(losses).standard_error, rel=1e-6)
    m = int(found.outcomes["train.accuracy.pgd"].sum())
    gap = newcombe(len(few) - k, len(few), len(train) - m, len(train))
    assert ends(found.report.get("gap.error")) == pytest.approx((gap.low, gap.high))


def test_groups_of_one_change_nothing(robust, few, threat, numbers):
    alone = replace(few, groups=few.index + 5)
    plan = Plan(probes=(Pgd(steps=2),))
    assert numbers(audit(robust, few, threat, plan).report) == numbers(
        audit(robust, alone, threat, plan).report
    )


def test_from_a_file_to_a_comparison(tmp_path):
    """A file with groups: `attack` counts them, and so does `compare`."""
    digits = load_examples("digits", n=16)
    x = np.repeat((digits.x * 255).byte().numpy(), COPIES, axis=0)
    y = np.repeat(digits.y.numpy(), COPIES)
    groups = np.repeat(np.arange(16), COPIES)
    np.savez(tmp_path / "grouped.npz", x=x, y=y, groups=groups)
    np.savez(tmp_path / "plain.npz", x=x[::COPIES], y=y[::COPIES])
    reports, compared = {}, {}
    for data in ("grouped", "plain"):
        for name in ("robust", "standard"):
            ran = robaudit(
                "attack", SAMPLES / f"{name}.pt", "--data", tmp_path / f"{data}.npz", "--eps", 0.15,
                "--steps", 2, "--device", "cpu", "-q", "--out", tmp_path / data / name,
            )  # fmt: skip
            assert ran.code == 0, ran.err
        reports[data] = json.loads((tmp_path / data / "robust" / "report.json").read_text())
        ran = robaudit(
            "compare", tmp_path / data / "robust", tmp_path / data / "standard", "--format", "json"
        )
        assert ran.code == 0, ran.err
        compared[data] = next(
            row for row in json.loads(ran.out)["differences"] if row["name"] == "accuracy.clean"
        )
    one, many = (
        next(m for m in reports[data]["measurements"] if m["name"] == "accuracy.clean")
        for data in ("plain", "grouped")
    )
    assert many["n"] == COPIES * one["n"]
    for end in ("low", "high"):
        assert many["interval"][end] == pytest.approx(one["interval"][end])
        assert compared["grouped"]["interval"][end] == pytest.approx(
            compared["plain"]["interval"][end]
        )
    assert compared["grouped"]["p_value"] == pytest.approx(compared["plain"]["p_value"])


def test_groups_that_do_not_fit_are_refused(tmp_path, few):
    with pytest.raises(UsageError, match=r"groups of shape \(3,\)"):
        replace(few, groups=torch.arange(3))
    x, y = np.zeros((4, 1, 8, 8), np.uint8), np.zeros(4, np.int64)
    for groups in (np.arange(3), np.zeros(4)):
        np.savez(tmp_path / "a.npz", x=x, y=y, groups=groups)
        with pytest.raises(DataError, match="groups are"):
            load_examples(str(tmp_path / "a.npz"))
    part = copied(few).taken(slice(4))
    assert part.groups.tolist() == part.index.tolist() == [0, 0, 0, 1]
