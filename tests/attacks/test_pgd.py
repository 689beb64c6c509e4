import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from robaudit.attacks import pgd
from robaudit.attacks.objectives import margin
from robaudit.engine import TILE, Runner, frozen
from robaudit.engine.projections import project, random_start
from robaudit.errors import NotMeasuredError, UsageError
from robaudit.types import ThreatModel

THREATS = [ThreatModel("linf", 0.1), ThreatModel("l2", 0.5)]


def network(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(128, 4),
    )  # fmt: skip


@pytest.fixture
def batch():
    torch.manual_seed(1)
    return torch.rand(150, 1, 8, 8), torch.randint(4, (150,))


def distance(adv, x, norm):
    moved = (adv - x).flatten(1)
    return moved.abs().amax(1) if norm == "linf" else moved.norm(dim=1)


@pytest.mark.parametrize("threat", THREATS)
@pytest.mark.parametrize("loss", ["ce", "margin"])
@pytest.mark.parametrize("mode", ["loss", "accuracy"])
def test_every_example_is_in_the_ball_and_the_box_and_does_what_is_said(threat, loss, mode, batch):
    model, (x, y) = network().eval(), batch
    found = pgd(model, x, y, threat, steps=7, restarts=2, loss=loss, mode=mode)
    assert float(distance(found.x, x, threat.norm).max()) <= threat.eps * (1 + 1e-6)
    assert 0 <= float(found.x.min()) <= float(found.x.max()) <= 1
    with torch.no_grad():
        clean, logits = model(x), model(found.x)
    assert torch.equal(found.correct, clean.argmax(1) == y)
    assert not bool((found.robust & ~found.correct).any())
    if mode == "accuracy":
        assert torch.equal(found.robust, logits.argmax(1) == y)
    else:
        clean_loss = F.cross_entropy(clean, y, reduction="none")
        assert bool((found.loss >= clean_loss - 1e-5).all())
        if loss == "ce":
            reached = F.cross_entropy(logits, y, reduction="none")
            torch.testing.assert_close(found.loss, reached, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("threat", THREATS)
@pytest.mark.parametrize("mode", ["loss", "accuracy"])
def test_results_do_not_depend_on_batch_size_order_or_subset(threat, mode, batch):
    model, (x, y) = network(), batch
    how = {"steps": 5, "seed": 3, "restarts": 2, "mode": mode}
    whole = pgd(model, x, y, threat, **how)
    for size in (1, 7, 200):
        other = pgd(model, x, y, threat, **how, batch_size=size)
        assert torch.equal(other.x, whole.x)
    order = torch.randperm(len(x))
    shuffled = pgd(model, x[order], y[order], threat, **how, index=order)
    assert torch.equal(shuffled.x, whole.x[order])
    alone = pgd(model, x[40:41], y[40:41], threat, **how, index=torch.tensor([40]))
    assert torch.equal(alone.x, whole.x[40:41])
    assert not torch.equal(pgd(model, x, y, threat, **{**how, "seed": 4}).x, whole.x)


def test_linear_model_reaches_the_closed_form_maximum():
    """linf, two classes: the worst logit difference is ``w^T x - eps ||w||_1`` inside the box."""
    torch.manual_seed(0)
    w = torch.randn(16)
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 2, bias=False))
    with torch.no_grad():
        model[1].weight.copy_(torch.stack([w, torch.zeros(16)]))
    x, y = 0.3 + 0.4 * torch.rand(30, 1, 4, 4), torch.zeros(30).long()
    found = pgd(model, x, y, ThreatModel("linf", 0.1), steps=20)
    want = F.softplus(-(x.flatten(1) @ w - 0.1 * w.abs().sum()))
    torch.testing.assert_close(found.loss, want, rtol=1e-4, atol=1e-5)
    found = pgd(model, x, y, ThreatModel("l2", 0.2), steps=40)
    want = F.softplus(-(x.flatten(1) @ w - 0.2 * w.norm()))
    torch.testing.assert_close(found.loss, want, rtol=1e-3, atol=1e-4)


def test_accuracy_mode_agrees_with_loss_mode_and_costs_less(batch):
    model, (x, y) = network(), batch
    threat = ThreatModel("linf", 0.1)
    full = pgd(model, x, y, threat, steps=10, restarts=2)
    quick = pgd(model, x, y, threat, steps=10, restarts=2, mode="accuracy")
    assert torch.equal(full.robust, quick.robust)
    assert full.forwards == len(x) * (1 + 2 * 11)
    assert full.backwards == len(x) * 2 * 10
    assert quick.forwards < full.forwards


def test_what_a_faster_way_to_run_the_network_says_is_confirmed_by_the_network(batch):
    """The searcher sees each image misclassified, so that every break it reports is doubtful."""
    model, (x, y) = network().eval(), batch
    threat, cpu = ThreatModel("linf", 0.03), torch.device("cpu")
    with frozen(model):
        judge = Runner(model, cpu)
        alone = pgd(judge, x, y, threat, steps=4, mode="accuracy")
        liar = Runner(lambda images: -model(images), cpu)
        misled = pgd(judge, x, y, threat, steps=4, mode="accuracy", searcher=liar)
    assert 0 < int(alone.robust.sum()) < int(alone.correct.sum())
    assert torch.equal(misled.correct, alone.correct)
    assert torch.equal(misled.robust, alone.robust)
    with torch.no_grad():
        assert torch.equal(model(misled.broken_x).argmax(1) == y, misled.robust)


def test_more_restarts_never_help_the_defender(batch):
    model, (x, y) = network(), batch
    threat = ThreatModel("linf", 0.05)
    one = pgd(model, x, y, threat, steps=5, restarts=1)
    three = pgd(model, x, y, threat, steps=5, restarts=3)
    assert bool((three.loss >= one.loss).all())
    assert bool((three.robust <= one.robust).all())


def test_the_model_is_left_as_it_was(batch):
    model = network().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    pgd(model, *batch, THREATS[0], steps=2)
    assert model.training
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_random_starts_fill_the_ball():
    """linf: uniform in the cube (Kolmogorov-Smirnov); l2: radius^d uniform."""
    from scipy.stats import kstest

    x, index = torch.full((400, 1, 4, 4), 0.5), torch.arange(400)
    moved = random_start(x, index, ThreatModel("linf", 0.2), 0, 0) - x
    assert kstest(moved.flatten().numpy(), "uniform", (-0.2, 0.4)).pvalue > 1e-4
    moved = (random_start(x, index, ThreatModel("l2", 0.2), 0, 0) - x).flatten(1)
    assert kstest(((moved.norm(dim=1) / 0.2) ** 16).numpy(), "uniform").pvalue > 1e-4
    direction = moved / moved.norm(dim=1, keepdim=True)
    assert float(direction.mean(0).norm()) < 5 / math.sqrt(400)


@pytest.mark.parametrize("threat", THREATS)
def test_projection_is_idempotent_and_keeps_inner_points(threat):
    torch.manual_seed(0)
    x = torch.rand(20, 1, 4, 4)
    far = project(x + torch.randn_like(x), x, threat)
    torch.testing.assert_close(project(far, x, threat), far)
    near = (x + 0.01 * torch.randn_like(x)).clamp(0, 1)
    torch.testing.assert_close(project(near, x, threat), near)


def test_margin_is_positive_exactly_where_misclassified():
    torch.manual_seed(0)
    logits, y = torch.randn(50, 5), torch.randint(5, (50,))
    assert torch.equal(margin(logits, y) > 0, logits.argmax(1) != y)


def test_logits_that_are_not_finite_are_no_robustness(batch):
    model = network()
    with torch.no_grad():
        model[5].bias[0] = float("nan")
    with pytest.raises(NotMeasuredError, match="not finite"):
        pgd(model, *batch, THREATS[0], steps=2)


def test_padding_is_not_counted():
    model = network()
    x, y = torch.rand(TILE + 3, 1, 8, 8), torch.zeros(TILE + 3).long()
    found = pgd(model, x, y, THREATS[0], steps=4)
    assert found.forwards == (TILE + 3) * (1 + 5)


def test_a_broken_example_comes_with_a_point_that_breaks_it(batch):
    """The point of highest loss may well be classified rightly."""
    model, (x, y) = network().eval(), batch
    found = pgd(model, x, y, THREATS[0], steps=5, restarts=2)
    with torch.no_grad():
        wrong = model(found.broken_x).argmax(1) != y
    assert torch.equal(wrong, ~found.robust)
    moved = (found.broken_x - x).abs().amax((1, 2, 3))
    assert float(moved.max()) <= THREATS[0].eps + 1e-6


def test_a_start_takes_the_place_of_the_first_random_point(batch):
    """With no step to speak of, the loss is that of the start or of the clean image."""
    model, (x, y) = network().eval(), batch
    start = (x + THREATS[0].eps).clamp(0, 1)
    found = pgd(model, x, y, THREATS[0], steps=1, step_size=1e-12, start=start)
    with torch.no_grad():
        losses = [F.cross_entropy(model(z), y, reduction="none") for z in (x, start)]
    torch.testing.assert_close(found.loss, torch.maximum(*losses))
    far = pgd(model, x, y, THREATS[0], steps=1, step_size=1e-12, start=x + 9)
    torch.testing.assert_close(far.loss, found.loss)


@pytest.mark.parametrize("threat", THREATS)
def test_the_last_iterate_alone_is_what_a_plain_loop_ends_with(threat, batch):
    """A step so large that it overshoots: what was broken on the way may stand at the end."""
    model, (x, y) = network().eval(), batch
    step, index = 1.7 * threat.eps, torch.arange(len(x))
    adv = random_start(x, index, threat, 0, 0)
    with frozen(model):
        clean = model(x).argmax(1) == y
        for _ in range(6):
            leaf = adv.clone().requires_grad_()
            (g,) = torch.autograd.grad(F.cross_entropy(model(leaf), y, reduction="sum"), leaf)
            length = g.flatten(1).norm(dim=1)[:, None, None, None]
            g = g.sign() if threat.norm == "linf" else g / length
            adv = project(adv + step * g, x, threat)
        robust = clean & (model(adv).argmax(1) == y)
    how = {"steps": 6, "step_size": step}
    last = pgd(model, x, y, threat, **how, last_iterate=True)
    worst = pgd(model, x, y, threat, **how)
    assert torch.equal(last.robust, robust)
    assert bool((worst.robust <= last.robust).all())
    assert bool((worst.loss >= last.loss - 1e-6).all())
    assert bool((worst.loss > last.loss + 1e-3).any())
    with pytest.raises(UsageError, match="last_iterate"):
        pgd(model, x, y, threat, mode="accuracy", last_iterate=True)
