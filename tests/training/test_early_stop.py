"""Early-stopped PGD against the published algorithm on one image at a time."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from robaudit.training import At, Trades, kl_divergence, maximise
from robaudit.types import ThreatModel

STEPS = 6


@pytest.fixture
def task():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.Tanh(), nn.Linear(8, 3)).double()
    x = torch.rand(40, 1, 4, 4, dtype=torch.float64)
    y = net(x).argmax(1)
    y[::5] = (y[::5] + 1) % 3  # some are misclassified from the start
    return net.eval(), x, y


def friendly(net, x, start, y, loss, eps, size, more):
    """The paper's Algorithm 1 for one image: stop once misclassified and nothing is left."""
    moved, left, taken = start, more, 0
    for _ in range(STEPS):
        moved = moved.detach().requires_grad_(True)
        logits = net(moved[None])
        if int(logits.argmax(1)) != int(y):
            if left == 0:
                break
            left -= 1
        (gradient,) = torch.autograd.grad(loss(net(x[None]).detach(), logits, y[None]), moved)
        moved = moved.detach() + size * gradient.sign()
        moved = torch.min(torch.max(moved, x - eps), x + eps).clamp(0, 1)
        taken += 1
    return moved.detach(), taken


@pytest.mark.parametrize("more", [0, 1, 3])
@pytest.mark.parametrize("kind", [At, Trades])
def test_each_image_stops_where_the_published_algorithm_stops(kind, more, task):
    net, x, y = task
    threat, size = ThreatModel("linf", 0.2), 0.06
    loss = {
        At: lambda clean, logits, label: F.cross_entropy(logits, label),
        Trades: lambda clean, logits, label: kl_divergence(clean, logits),
    }[kind]
    found = kind(threat, STEPS, size, early_stop=more).examples(
        net, x, y, torch.Generator().manual_seed(1)
    )
    start = maximise(
        torch.sum, x, threat, steps=0, generator=torch.Generator().manual_seed(1)
    )  # the same random starts
    alone = [friendly(net, *rows, loss, 0.2, size, more) for rows in zip(x, start, y, strict=True)]
    torch.testing.assert_close(found, torch.stack([moved for moved, _ in alone]))
    assert {more, STEPS} <= {taken for _, taken in alone}


def test_with_as_many_steps_as_there_are_nothing_stops_early(task):
    net, x, y = task
    threat = ThreatModel("l2", 0.5)
    plain, never = (
        At(threat, STEPS, early_stop=more).examples(net, x, y, torch.Generator().manual_seed(1))
        for more in (None, STEPS)
    )
    assert torch.equal(plain, never)


def test_a_mixed_target_counts_as_its_larger_part(task):
    net, x, y = task
    targets = 0.7 * F.one_hot(y, 3) + 0.3 * F.one_hot((y + 1) % 3, 3)
    attack = At(ThreatModel("linf", 0.2), STEPS, early_stop=0)
    found = attack.examples(net, x, targets.double(), torch.Generator().manual_seed(1))
    wrong_at_start = (
        net(
            maximise(
                torch.sum, x, attack.threat, steps=0, generator=torch.Generator().manual_seed(1)
            )
        ).argmax(1)
        != y
    )
    assert wrong_at_start.any()
    start = maximise(
        torch.sum, x, attack.threat, steps=0, generator=torch.Generator().manual_seed(1)
    )
    unmoved = (found == start).flatten(1).all(1)
    assert torch.equal(unmoved, wrong_at_start)
