"""Worst-case flatness as published, in the code and in the paper, against plain loops."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from robaudit.attacks import pgd
from robaudit.engine.projections import random_start
from robaudit.flatness import worst
from robaudit.flatness.weights import draw_for, in_ball, movable_weights
from robaudit.protocols import STUTZ_STEP_OVER_EPS
from robaudit.types import ThreatModel

THREAT = ThreatModel("linf", 0.05)
XI, WEIGHT_STEP, PASSES = 0.05, 0.02, 4
STEP = STUTZ_STEP_OVER_EPS * THREAT.eps


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 3, 3, padding=1), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(),
        nn.Linear(48, 6), nn.ReLU(), nn.Linear(6, 3),
    ).double().eval()  # fmt: skip


@pytest.fixture(scope="module")
def images():
    """Two batches of 128 and a rest, not of one distribution, so that the order counts."""
    torch.manual_seed(1)
    x = torch.rand(300, 1, 4, 4, dtype=torch.float64)
    return x, (torch.arange(300) * 3 // 300)


def starts(model, x, restart):
    weights = movable_weights(model)
    nu = in_ball(weights, XI, draw_for(0, "worst", restart))
    return nu, random_start(x, torch.arange(len(x)), THREAT, 0, restart)


def stepped(model, nu, x, adv, y):
    """One step in the weights and one in the images, and the losses before it."""
    moved = copy.deepcopy(model)
    for name, p in moved.named_parameters():
        p.data += nu.get(name, 0)
    adv = adv.clone().requires_grad_()
    losses = F.cross_entropy(moved(adv), y, reduction="none")
    losses.mean().backward()
    after = {}
    for name, p in moved.named_parameters():
        if name in nu:
            norm = model.get_parameter(name).detach().norm()
            to = nu[name] + WEIGHT_STEP * norm * p.grad / p.grad.norm()
            after[name] = to * min(1.0, float(XI * norm / to.norm()))
    image = adv.detach() + STEP * adv.grad.sign()
    image = torch.minimum(torch.maximum(image, x - THREAT.eps), x + THREAT.eps).clamp(0, 1)
    return after, image, losses.detach()


def as_in_the_code(model, x, y, restart):
    """One network; a step after each batch of 128; all batches at the end's network."""
    nu, adv = starts(model, x, restart)
    steps = 0
    for _ in range(PASSES):
        for start in range(0, len(x), 128):
            part = slice(start, start + 128)
            nu, adv[part], _ = stepped(model, nu, x[part], adv[part], y[part])
            steps += 1
    assert steps == 3 * PASSES
    return stepped(model, nu, x, adv, y)[2]


def as_in_the_paper(model, x, y, restart):
    """Each batch of 128 with a network of its own."""
    losses = []
    first, begin = starts(model, x, restart)
    for start in range(0, len(x), 128):
        part = slice(start, start + 128)
        nu, adv = first, begin[part]
        for _ in range(PASSES):
            nu, adv, _ = stepped(model, nu, x[part], adv, y[part])
        losses.append(stepped(model, nu, x[part], adv, y[part])[2])
    return torch.cat(losses)


HOW = {"xi": XI, "weight_step": WEIGHT_STEP, "passes": PASSES, "restarts": 2, "steps": 3}


@pytest.mark.parametrize("stack", [1, 2])
@pytest.mark.parametrize(
    ("protocol", "loop"), [("stutz2021", as_in_the_code), ("stutz2021-text", as_in_the_paper)]
)
def test_they_are_what_plain_loops_find(protocol, loop, stack, model, images):
    found = worst(model, *images, THREAT, protocol=protocol, stack=stack, **HOW)
    wanted = [loop(model, *images, restart) for restart in range(2)]
    means = [float(losses.mean()) for losses in wanted]
    assert found.restarts == pytest.approx(means, rel=1e-7)
    strong = pgd(model, *images, THREAT, steps=3, restarts=10, step_size=STEP)
    reference = float(strong.loss.double().mean())
    assert found.value == pytest.approx(max(means) - reference, rel=1e-6, abs=1e-9)
    own = tuple(model[4].weight.shape)
    assert found.nu["4.weight"].shape == ((3, *own) if protocol == "stutz2021-text" else own)


def test_the_code_s_depends_on_the_order_of_the_images_and_ends_near_the_last_batch(model, images):
    """What the paper describes and robaudit's own does not; rounding apart in the others."""
    x, y = images
    back = torch.cat([torch.arange(172, 300), torch.arange(44, 172), torch.arange(44)])
    swapped = {"index": back, **HOW}
    values = {
        protocol: (
            worst(model, x, y, None, protocol=protocol, **HOW).restarts[0],
            worst(model, x[back], y[back], None, protocol=protocol, **swapped).restarts[0],
        )
        for protocol in ("default", "stutz2021")
    }
    ours, theirs = values["default"], values["stutz2021"]
    assert ours[0] == pytest.approx(ours[1], rel=1e-9)
    assert theirs[0] != pytest.approx(theirs[1], rel=1e-4)
    # 12 steps of which the text's batches have four each: those end higher.
    text = worst(model, x, y, None, protocol="stutz2021-text", **HOW)
    assert text.restarts[0] > theirs[0]


def test_of_one_batch_they_are_the_same(model, images):
    x, y = images[0][:128], images[1][:128]
    code, text = (
        worst(model, x, y, THREAT, protocol=protocol, **HOW)
        for protocol in ("stutz2021", "stutz2021-text")
    )
    assert code.restarts == pytest.approx(text.restarts, rel=1e-9)
