"""Square's recorded steps on a GPU are those that are launched kernel by kernel."""

import pytest
import torch

import robaudit as ra
from robaudit.attacks.square import square
from robaudit.checkpoints import samples_dir
from robaudit.engine import Runner, accelerate, frozen

pytestmark = pytest.mark.gpu
CUDA = torch.device("cuda")


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.15), ("l2", 0.6), ("l1", 1.5)])
def test_recorded_steps_are_the_plain_ones(norm, eps, precision):
    model, ball = ra.load(samples_dir() / "robust.pt", device="cuda"), ra.ThreatModel(norm, eps)
    data = ra.load_examples("digits", n=300)
    with frozen(model):
        form = accelerate(model, (1, 8, 8), precision, examples=data.x)
        recorded = Runner(form.forward, CUDA, precision=form.precision)
        plain = Runner(lambda x: form.forward(x), CUDA, precision=form.precision)
        one, other = (
            square(runner, data.x, data.y, ball, queries=300) for runner in (recorded, plain)
        )
        judged = model(one.x.cuda()).argmax(1).cpu() == data.y
    assert recorded.network.notes == []
    assert recorded.network.records
    assert not plain.network.records
    assert 0 < int(one.robust.sum()) < int(one.correct.sum())
    # The same draws: only rounding can set them apart, at a margin that is nearly equal.
    assert int((one.robust != other.robust).sum()) <= 3
    assert int((judged != one.robust).sum()) <= (1 if precision == "fp32" else 5)
