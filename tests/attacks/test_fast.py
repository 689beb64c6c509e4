"""The fast tier: on networks whose exact answer is known, within its passes, each image alone."""

import importlib

import pytest
import torch
from support.attacks import THREATS, examples, network
from torch import nn

from robaudit.attacks import apgd, fast
from robaudit.attacks import narrowing as narrowing_module
from robaudit.attacks.fast import MOST_PASSES
from robaudit.attacks.narrowing import Round, narrowing, passes
from robaudit.attacks.patches import patches
from robaudit.types import ThreatModel

fast_module = importlib.import_module("robaudit.attacks.fast")
ORDERS = {"linf": 1, "l2": 2, "l1": torch.inf}


def named(value):
    return getattr(value, "norm", value)


def linear(classes=6, pixels=36):
    torch.manual_seed(3)
    return nn.Sequential(nn.Flatten(), nn.Linear(pixels, classes))


def distances(model, x, y, norm):
    """To the nearest decision boundary of a linear network, by target class, ``(n, k)``."""
    weight = model[1].weight.detach()
    with torch.no_grad():
        logits = model(x)
    own = torch.arange(len(y)), y
    slopes = weight[y][:, None] - weight[None]
    away = (logits[own][:, None] - logits) / torch.linalg.vector_norm(slopes, ORDERS[norm], dim=2)
    away[own] = torch.inf
    return away


class Counted(nn.Module):
    """Counts the images that pass, forwards and backwards."""

    def __init__(self, model):
        super().__init__()
        self.model, self.forwards, self.backwards = model, 0, 0

    def forward(self, x):
        self.forwards += len(x)
        logits = self.model(x)
        if logits.requires_grad:
            logits.register_hook(self.back)
        return logits

    def back(self, gradient):
        self.backwards += len(gradient)


class Steps(nn.Module):
    """No gradient anywhere: the input in steps of an eighth."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x):
        return self.model((8 * x).round() / 8 + 0 * x)


@pytest.mark.parametrize("norm", ORDERS)
def test_a_linear_network_stands_exactly_where_its_boundaries_are_far(norm):
    # Images so far inside the box that it is no bound.
    model = linear()
    torch.manual_seed(0)
    x = 0.4 + 0.2 * torch.rand(40, 1, 6, 6)
    y = model(x).argmax(1)
    nearest = distances(model, x, y, norm).amin(1)
    eps = float(nearest.median())
    found = fast(model, x, y, ThreatModel(norm, eps))
    # In l1 APGD spreads its steps over some pixels, where a single one would be best.
    clear = (nearest / eps - 1).abs() > (0.03 if norm == "l1" else 0.01)
    assert int(clear.sum()) > 30
    assert torch.equal(found.robust[clear], (nearest > eps)[clear])


@pytest.mark.parametrize("ball", THREATS, ids=named)
def test_its_passes_are_those_that_it_states(ball):
    model = Counted(network(classes=10))
    x, _ = examples(model.model, 64)
    with torch.no_grad():
        y = model.model(x).argmax(1)
    model.forwards = 0
    found = fast(model, x, y, ThreatModel(ball.norm, 1e-5))
    assert bool(found.robust.all())
    rounds = fast_module._ROUNDS[ball.norm]
    assert sum(found.passes["apgd-malt"]) == 64 * (1 + passes(rounds, 10, ball.norm))
    # Runs by plain and by leaky gradients have tiles of their own, which are filled up.
    assert found.backwards <= model.backwards < 1.5 * found.backwards
    spent = found.forwards + found.backwards
    assert spent <= MOST_PASSES * 64
    if ball.norm == "linf":
        # Patches that change nothing need no pass, and the others' tiles are filled up.
        assert 0 < found.passes["patches"][0] <= 64 * 305
    else:
        assert spent > 0.9 * MOST_PASSES * 64


def test_an_image_alone_has_the_same_result():
    model, ball = network(classes=10), ThreatModel("linf", 0.03)
    x, y = examples(model, 12)
    whole = fast(model, x, y, ball, seed=1)
    for row in (slice(1, 2), slice(9, 12)):
        alone = fast(model, x[row], y[row], ball, seed=1, index=torch.arange(12)[row])
        assert torch.equal(alone.x, whole.x[row])
        assert torch.equal(alone.broken_by, whole.broken_by[row])


def test_interrupted_between_its_attacks_it_ends_as_if_undisturbed():
    model = network(classes=10)
    x, y = examples(model, 24)
    kept = {}

    def cache(name, compute):
        if name not in kept:
            kept[name] = compute()
        return kept[name]

    ball = ThreatModel("linf", 0.03)
    first = fast(model, x, y, ball, cache=cache)
    assert {name.rsplit("-", 2)[0] for name in kept} == set(first.accuracies)
    for name in [name for name in kept if name.startswith("patches")]:
        del kept[name]
    again = fast(model, x, y, ball, cache=cache)
    assert torch.equal(first.x, again.x)
    assert torch.equal(first.broken_by, again.broken_by)
    assert (first.forwards, first.backwards) == (again.forwards, again.backwards)


def test_later_rounds_go_on_with_the_runs_that_got_furthest(monkeypatch):
    model, asked = linear(), []
    torch.manual_seed(0)
    x = 0.4 + 0.2 * torch.rand(20, 1, 6, 6)
    y = model(x).argmax(1)
    away = distances(model, x, y, "linf")
    climb = narrowing_module.climb

    def noted(runner, part, verdicts, attacked, targets, settings, tick, chosen):
        asked.append((targets, int(chosen[attacked].sum())))
        return climb(runner, part, verdicts, attacked, targets, settings, tick, chosen)

    monkeypatch.setattr(narrowing_module, "climb", noted)
    ball = ThreatModel("linf", 0.5 * float(away.amin()))
    rounds = [Round(10, 8), Round(4, 8), Round(2, 8, 2)]
    found = narrowing(model, x, y, ball, rounds=rounds, slope=0.1)
    assert bool(found.robust.all())
    # Every round runs by plain and by leaky gradients, each run by one of the two.
    shapes = [targets.shape for targets, _ in asked]
    assert shapes == [(20, 10)] * 2 + [(20, 4)] * 2 + [(20, 2)] * 4
    runs = [rows for _, rows in asked]
    assert [sum(runs[at : at + 2]) for at in range(0, 8, 2)] == [200, 80, 40, 40]
    # On a linear network APGD ends at the highest loss, which is known, by either gradient.
    weight = model[1].weight.detach()
    with torch.no_grad():
        logits = model(x)
    slopes = torch.linalg.vector_norm(weight[y][:, None] - weight[None], 1, dim=2)
    highest = logits - logits.gather(1, y[:, None]) + ball.eps * slopes
    top = highest.scatter(1, y[:, None], -torch.inf).argmax(1)
    # The DLR loss divides by a spread of logits, which can change the order of a close pair.
    assert float((asked[-1][0] == top[:, None]).float().mean()) >= 0.9


def test_leaky_gradients_break_a_network_that_has_none_where_it_begins():
    """Three classes rise with units that are off on the images and nearly everywhere around."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 4), nn.ReLU(), nn.Linear(4, 4, bias=False))
    with torch.no_grad():
        model[1].weight.copy_(torch.eye(4).repeat_interleave(4, 1))
        model[1].bias.copy_(torch.tensor([0.0, -3.4, -3.4, -3.4]))
        model[3].weight.copy_(torch.diag(torch.tensor([0.0, 1.0, 1.0, 1.0])))
        model[3].weight[0, 0] = 0.05
    x, y = 0.5 + 0.01 * torch.rand(30, 1, 4, 4), torch.zeros(30).long()
    ball = ThreatModel("linf", 0.4)  # the sum of four pixels reaches 3.6
    assert bool(apgd(model, x, y, ball, steps=40).robust.all())
    rounds = [Round(6, 8), Round(2, 20)]
    assert bool(narrowing(model, x, y, ball, rounds=rounds, slope=0.0).robust.all())
    found = narrowing(model, x, y, ball, rounds=rounds, slope=0.1)
    assert not bool(found.robust.any())
    assert bool((model(found.x).argmax(1) != 0).all())


def test_patches_raise_the_margin_from_where_they_start():
    model = Steps(network(classes=10))
    x, y = examples(model, 40)
    ball = ThreatModel("linf", 0.07)
    without = apgd(model, x, y, ball, steps=10)
    start = (x + ball.eps * torch.rand_like(x).sub(0.5).sign()).clamp(0, 1)
    found = patches(model, x, y, ball, start=start, most=200)
    assert found.backwards == 0
    assert found.forwards <= 40 + 201 * 40
    assert int(found.robust.sum()) < int(without.robust.sum())
    with torch.no_grad():
        assert torch.equal(found.robust, model(found.x).argmax(1) == y)
    assert int(fast(model, x, y, ball).robust.sum()) < int(without.robust.sum())
