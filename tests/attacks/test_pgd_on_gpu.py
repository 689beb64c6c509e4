"""PGD on a pretended GPU: nothing in its loops waits for what the GPU computes."""

import pytest
import torch
from support.attacks import examples, network
from support.pretended_gpu import on_gpu, pretended_gpu, waiting

from robaudit.attacks import pgd, pgd_early_exit
from robaudit.engine import Runner, accelerate, frozen
from robaudit.types import ThreatModel

THREATS = [ThreatModel("linf", 0.08), ThreatModel("l2", 0.4), ThreatModel("l1", 1.5)]
# No image is broken so near, so that runs of all lengths attack the same ones.
NEAR = [ThreatModel("linf", 1e-6), ThreatModel("l2", 1e-5), ThreatModel("l1", 1e-5)]


def named(value):
    return getattr(value, "norm", value)


def waits(model, x, y, threat, precision, **how):
    """What the processor waits for in an attack."""
    with frozen(model):
        judge = Runner(model, x.device)
        searcher = None
        if precision == "bf16":
            form = accelerate(model, x.shape[1:], "bf16")
            assert form.precision == "bf16"
            searcher = Runner(form.forward, x.device, precision="bf16")
        for runner in (judge, searcher):
            if runner is not None:  # what a network asks for once
                runner.gradient(lambda logits, _: logits[:, 0], x, y)
                runner.network._recorder = None
        with waiting() as counts:
            found = pgd(judge, x, y, threat, searcher=searcher, **how)
    assert found.searched == precision
    return sum(counts.values())


@pytest.mark.parametrize(
    ("precision", "threat"),
    [
        ("fp32", NEAR[1]),
        ("bf16", NEAR[0]),
        *(pytest.param("fp32", near, marks=pytest.mark.slow) for near in (NEAR[0], NEAR[2])),
    ],
    ids=named,
)
def test_no_step_waits_for_the_gpu(precision, threat):
    x, y = examples(network(), 4)
    with pretended_gpu():
        model = on_gpu(network())
        x, y = x.to("cuda"), y.to("cuda")
        given = model, x, y, threat, precision
        short, long = (waits(*given, steps=steps) for steps in (1, 4))
        assert 0 < short == long
        looks = [waits(*given, steps=steps, mode="accuracy") for steps in (3, 7)]
    # A look every four steps; of the judge, too, as nothing rises within this ball in bfloat16.
    runners = 2 if precision == "bf16" else 1
    assert looks[1] - looks[0] == runners


@pytest.mark.parametrize("threat", THREATS, ids=named)
@pytest.mark.parametrize("every", [2, 4, 50])
def test_when_broken_examples_leave_does_not_matter(threat, every, monkeypatch):
    model = network()
    x, y = examples(model, 150)
    how = {"steps": 9, "restarts": 2, "mode": "accuracy"}
    with frozen(model):
        found = pgd(Runner(model, torch.device("cpu")), x, y, threat, **how)
        monkeypatch.setattr(pgd_early_exit, "_LOOK_CPU", every)
        later = pgd(Runner(model, torch.device("cpu")), x, y, threat, **how)
    for name in ("x", "broken_x", "loss", "robust", "stuck", "reached"):
        assert torch.equal(getattr(found, name), getattr(later, name)), name
    assert 0 < int(found.robust.sum()) < int(found.correct.sum())
    assert later.forwards > found.forwards
