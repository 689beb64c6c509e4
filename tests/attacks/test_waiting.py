"""APGD and FAB on a pretended GPU: no step waits for what it computes, but where examples leave."""

import importlib

import pytest
import torch
from support.attacks import THREATS, examples, network
from support.pretended_gpu import on_gpu, pretended_gpu, waiting

from robaudit.attacks import apgd, apgd_loop, fab
from robaudit.attacks.narrowing import Round, narrowing
from robaudit.engine import Runner, captured, frozen
from robaudit.types import ThreatModel

FAB = importlib.import_module("robaudit.attacks.fab")
# No image is broken so near.
NEAR = {norm: ThreatModel(norm, 1e-6) for norm in ("linf", "l2", "l1")}
CASES = {
    "apgd": (apgd, "linf", {}),
    "apgd, whole": (apgd, "l2", {"mode": "loss"}),
    "apgd, targeted": (apgd, "linf", {"loss": "dlr", "targets": 2}),
    "apgd, sparse": (apgd, "l1", {}),
    "fab": (fab, "linf", {"targets": 0}),
    "fab, targeted": (fab, "l2", {"targets": 2, "mode": "accuracy"}),
    "narrowing": (
        lambda *a, steps: narrowing(*a, rounds=[Round(4, steps), Round(4, 2)], slope=0.1),
        "l2",
        {},
    ),
}


def waits(run, threat, n, **how):
    """What the processor waits for in an attack on ``n`` images, and its result."""
    x, y = examples(network(), n)
    with pretended_gpu(), pytest.MonkeyPatch.context() as patched:
        patched.setattr(captured, "recorder_for", lambda device: None)
        x, y = x.to("cuda"), y.to("cuda")
        with frozen(on_gpu(network())) as model:
            runner = Runner(model, x.device, 64)
            runner.gradient(lambda logits, _: logits[:, 0], x, y)  # what is asked for once
            with waiting() as counts:
                found = run(runner, x, y, threat, **how)
    return sum(counts.values()), found


@pytest.mark.parametrize(
    "case",
    [pytest.param(case, marks=[pytest.mark.slow] * (case == "apgd, sparse")) for case in CASES],
)
def test_no_step_waits_and_no_block(case, monkeypatch):
    """As often for a step as for many until examples may leave, and for one block as for two."""
    run, norm, how = CASES[case]
    monkeypatch.setattr(apgd_loop, "_segments", lambda steps: [range(steps)])
    monkeypatch.setattr(FAB, "_SEGMENT", 1 << 20)
    few, _ = waits(run, NEAR[norm], 5, steps=1, **how)
    many, found = waits(run, NEAR[norm], 70, steps=4, **how)
    assert torch.equal(found.robust, found.correct)
    assert few == many > 0


@pytest.mark.parametrize("threat", THREATS[:2], ids=lambda threat: threat.norm)
def test_where_examples_leave_three_values_are_read(threat, monkeypatch):
    """Whether any is broken, which rows are, and which rows stay."""
    every, found = waits(apgd, threat, 40, steps=12)
    assert 0 < int(found.robust.sum()) < int(found.correct.sum())
    looks = len(list(apgd_loop._segments(12)))
    monkeypatch.setattr(apgd_loop, "_segments", lambda steps: [range(steps)])
    once, _ = waits(apgd, threat, 40, steps=12)
    assert once < every <= once + 3 * looks


@pytest.mark.parametrize("threat", THREATS, ids=lambda threat: threat.norm)
def test_when_examples_leave_does_not_matter(threat, monkeypatch):
    model = network()
    x, y = examples(model, 90)
    how = {"steps": 10, "loss": "dlr", "targets": 2}
    found = apgd(model, x, y, threat, **how)
    monkeypatch.setattr(apgd_loop, "_segments", lambda steps: [range(steps)])
    later = apgd(model, x, y, threat, **how)
    assert torch.equal(found.x, later.x)
    assert torch.equal(found.robust, later.robust)
    assert 0 < int(found.robust.sum()) < int(found.correct.sum())
    assert later.forwards > found.forwards
