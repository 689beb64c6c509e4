"""Input gradients, alignment and local linearity against closed forms and all corners of a box."""

import itertools

import pytest
import torch
from support.masking import NotANumber
from torch import nn

from robaudit.attacks import gradient_alignment, input_gradient_norm, local_linearity
from robaudit.engine.projections import random_start
from robaudit.errors import NotMeasuredError
from robaudit.types import ThreatModel

NORMS = ["linf", "l2", "l1"]
DUAL = {"linf": 1, "l2": 2, "l1": torch.inf}


def linear(pixels=4, classes=3, scale=1.0, seed=0):
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Flatten(), nn.Linear(pixels, classes))
    with torch.no_grad():
        net[1].weight.mul_(scale)
    return net


def images(n=70, side=2, classes=3, low=0.3, high=0.7):
    draw = torch.Generator().manual_seed(1)
    x = low + (high - low) * torch.rand(n, 1, side, side, generator=draw)
    return x, torch.randint(classes, (n,), generator=draw)


def exact(net, x, y):
    """Loss and gradient of a softmax-linear network in float64: ``W^T (p - e_y)``."""
    weight, bias = net[1].weight.detach().double(), net[1].bias.detach().double()
    logits = x.flatten(1).double() @ weight.T + bias
    loss = logits.logsumexp(1) - logits.gather(1, y[:, None])[:, 0]
    apart = logits.softmax(1) - nn.functional.one_hot(y, len(bias))
    return loss, apart @ weight


@pytest.mark.parametrize("norm", NORMS)
def test_the_norm_is_the_dual_one_of_the_closed_form(norm):
    net, (x, y) = linear(), images()
    found = input_gradient_norm(net, x, y, ThreatModel(norm, 0.1))
    want = exact(net, x, y)[1].norm(p=DUAL[norm], dim=1)
    assert torch.allclose(found, want, rtol=1e-5)


@pytest.mark.parametrize("norm", NORMS)
def test_alignment_is_the_closed_form_s_at_the_drawn_points(norm):
    net, (x, y) = linear(scale=8), images()
    threat = ThreatModel(norm, 0.25)
    index = torch.arange(len(x)) + 5
    found = gradient_alignment(net, x, y, threat, seed=3, index=index)
    moved = random_start(x, index, threat, 3, 0, "alignment")
    here, there = exact(net, x, y)[1], exact(net, moved, y)[1]
    want = torch.cosine_similarity(here, there, dim=1)
    assert torch.allclose(found, want, atol=1e-5)
    assert float(found.min()) < 0.999
    assert not torch.equal(found, gradient_alignment(net, x, y, threat, seed=4, index=index))


@pytest.mark.parametrize("scale", [1.0, 1000.0])
def test_two_classes_of_a_linear_network_are_aligned(scale):
    """One direction, also where float32 has nothing left of the loss and of its gradient."""
    net, (x, y) = linear(classes=2, scale=scale), images(classes=2)
    found = gradient_alignment(net, x, y, ThreatModel("linf", 0.1))
    assert torch.allclose(found, torch.ones(()).double(), atol=1e-6)
    if scale == 1000:
        assert float(input_gradient_norm(net, x, y, ThreatModel("linf", 0.1)).min()) == 0


def corners(x, eps):
    """The corners of the linf ball of one image, cut with the box."""
    low, high = (x - eps).clamp_min(0).flatten(), (x + eps).clamp_max(1).flatten()
    choices = itertools.product(*zip(low.tolist(), high.tolist(), strict=True))
    return torch.tensor(list(choices), dtype=torch.float64)


@pytest.mark.parametrize(("low", "high"), [(0.3, 0.7), (0.0, 1.0)])
def test_the_error_is_found_at_the_corners(low, high):
    """The cross-entropy of a linear network is convex, so its error is largest at a corner."""
    net, (x, y) = linear(scale=8), images(low=low, high=high)
    eps = 0.2
    loss, slope = exact(net, x, y)
    want = []
    for at in range(len(x)):
        points = corners(x[at].double(), eps)
        there = exact(net, points, y[at].repeat(len(points)))[0]
        linear_part = (points - x[at].double().flatten()) @ slope[at]
        want.append(float((there - loss[at] - linear_part).abs().max()))
    want = torch.tensor(want, dtype=torch.float64)
    found = local_linearity(net, x, y, ThreatModel("linf", eps))
    assert torch.allclose(found.error, want, rtol=1e-4, atol=1e-5)  # float32
    assert torch.allclose(found.first_order, eps * slope.abs().sum(1), rtol=1e-5)


@pytest.mark.parametrize("norm", ["l2", "l1"])
def test_the_error_of_two_classes_is_a_function_of_one_number(norm):
    """``v(t) = s(m + t) - s(m) - t s'(m)`` at ``t = eps ||w||_*`` or its negative: the larger."""
    net, (x, y) = linear(classes=2, scale=4), images(classes=2)
    eps = 0.1
    weight = net[1].weight.detach().double()
    reach = eps * (weight[0] - weight[1]).norm(p=DUAL[norm])
    margin = exact(net, x, y)[0].expm1().log()
    soft = nn.functional.softplus
    sides = [soft(margin + t) - soft(margin) - t * torch.sigmoid(margin) for t in (reach, -reach)]
    found = local_linearity(net, x, y, ThreatModel(norm, eps), steps=40)
    want = torch.maximum(*sides)
    assert torch.allclose(found.error, want, rtol=1e-3, atol=1e-5)  # float32


def test_a_loss_that_is_linear_has_no_error():
    """The margin is so large that the cross-entropy of a wrong class is linear in the image."""
    net, (x, _) = linear(classes=2, scale=1.0), images()
    with torch.no_grad():
        net[1].bias.copy_(torch.tensor([60.0, 0.0]))
    wrong = torch.ones(len(x), dtype=torch.long)
    found = local_linearity(net, x, wrong, ThreatModel("linf", 0.1))
    assert float(found.error.max()) < 2e-5  # the rounding of a loss of 60
    assert float(found.first_order.min()) > 1e-3


def measures(net, x, y, index, norm):
    threat = ThreatModel(norm, 0.2)
    linearity = local_linearity(net, x, y, threat, steps=3, index=index)
    return torch.stack(
        [
            input_gradient_norm(net, x, y, threat),
            gradient_alignment(net, x, y, threat, index=index),
            linearity.error,
            linearity.first_order,
        ]
    )


@pytest.mark.parametrize("norm", NORMS)
def test_neither_order_nor_company_matters(norm):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3)).eval()
    x, y = images(n=150, side=6)
    index = torch.arange(150)
    whole = measures(net, x, y, index, norm)
    order = torch.randperm(150, generator=torch.Generator().manual_seed(2))
    assert torch.equal(measures(net, x[order], y[order], index[order], norm), whole[:, order])
    few = order[:5]
    assert torch.equal(measures(net, x[few], y[few], index[few], norm), whole[:, few])


def test_progress_ends_at_the_whole():
    seen = []
    net, (x, y) = linear(), images(n=7)
    local_linearity(
        net, x, y, ThreatModel("linf", 0.1), steps=2, progress=lambda *at: seen.append(at)
    )
    assert seen == [(7 * at, 42) for at in range(1, 7)]


def test_no_gradient_has_no_direction():
    net, (x, y) = linear(scale=0.0), images(n=3)
    assert bool(gradient_alignment(net, x, y, ThreatModel("linf", 0.1)).isnan().all())
    assert input_gradient_norm(net, x, y, ThreatModel("linf", 0.1)).tolist() == [0, 0, 0]


@pytest.mark.parametrize("measure", [input_gradient_norm, gradient_alignment, local_linearity])
def test_a_gradient_that_is_no_number_is_no_measure(measure):
    """Attacks step along the rest of such a gradient; a norm of the rest would be a wrong one."""
    net, (x, y) = NotANumber(linear()), images(n=3)
    with pytest.raises(NotMeasuredError, match="not finite on 3 images"):
        measure(net, x, y, ThreatModel("linf", 0.1))
