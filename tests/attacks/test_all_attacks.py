"""What holds for every attack."""

import pytest
import torch
from support.attacks import ATTACKS, THREATS, distance, examples, network
from torch import nn

from robaudit.attacks import apgd, fab, square
from robaudit.errors import NotMeasuredError
from robaudit.types import ThreatModel


def named(value):
    return getattr(value, "norm", value)


@pytest.mark.parametrize("ball", THREATS, ids=named)
@pytest.mark.parametrize("name", ATTACKS)
def test_what_breaks_is_in_the_ball_and_the_box_and_misclassified(name, ball):
    model = network()
    x, y = examples(model)
    found = ATTACKS[name](model, x, y, ball)
    assert float(distance(found.x, x, ball.norm).max()) <= ball.eps * (1 + 1e-5)
    assert 0 <= float(found.x.min()) <= float(found.x.max()) <= 1
    with torch.no_grad():
        assert torch.equal(found.correct, model(x).argmax(1) == y)
        assert torch.equal(found.robust, model(found.x).argmax(1) == y)
    assert bool(found.correct.any())
    assert not bool((found.robust & ~found.correct).any())
    assert torch.equal(found.x[found.robust], x[found.robust])
    assert bool((found.correct & ~found.robust).any())  # the test would be empty without


@pytest.mark.slow
@pytest.mark.parametrize("ball", THREATS, ids=named)
@pytest.mark.parametrize("name", ATTACKS)
def test_the_same_bits_for_every_batch_size_order_and_shard(name, ball):
    # An odd number of pixels: nothing fits a vector register, whatever the rows.
    model = network(pixels=7)
    x, y = examples(model, 150, pixels=7)
    index = torch.arange(100, 250)
    whole = ATTACKS[name](model, x, y, ball, seed=3, index=index)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    mixed = ATTACKS[name](model, x[order], y[order], ball, seed=3, index=index[order], batch_size=7)
    assert torch.equal(mixed.x, whole.x[order])
    assert torch.equal(mixed.robust, whole.robust[order])
    assert (mixed.forwards, mixed.backwards) == (whole.forwards, whole.backwards)
    for part in (slice(0, 1), slice(41, 48), slice(48, 113)):
        shard = ATTACKS[name](model, x[part], y[part], ball, seed=3, index=index[part])
        assert torch.equal(shard.x, whole.x[part])
        assert torch.equal(shard.robust, whole.robust[part])


@pytest.mark.parametrize("name", [name for name in ATTACKS if name != "fab-t"])
def test_seeds_and_indices_matter(name):
    model = network()
    x, y = examples(model)
    ball = ThreatModel("linf", 0.08)
    first = ATTACKS[name](model, x, y, ball, seed=0)
    again = ATTACKS[name](model, x, y, ball, seed=0)
    assert torch.equal(first.x, again.x)
    if name != "fab":  # draws only where the first restart failed to come nearer
        assert not torch.equal(first.x, ATTACKS[name](model, x, y, ball, seed=1).x)
        moved = torch.arange(len(x)) + 1
        assert not torch.equal(first.x, ATTACKS[name](model, x, y, ball, index=moved).x)


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
@pytest.mark.parametrize("name", ATTACKS)
def test_a_ball_of_no_size_leaves_the_clean_verdict(name, norm):
    model = network()
    x, y = examples(model, 24)
    found = ATTACKS[name](model, x, y, ThreatModel(norm, 1e-9))
    assert torch.equal(found.robust, found.correct)


@pytest.mark.parametrize("name", [name for name in ATTACKS if name not in ("apgd-dlr", "apgd-t")])
def test_two_classes(name):
    model = network(classes=2)
    x, y = examples(model)
    found = ATTACKS[name](model, x, y, ThreatModel("linf", 0.3))
    assert int(found.robust.sum()) < int(found.correct.sum())


@pytest.mark.parametrize("name", ATTACKS)
def test_the_network_is_left_as_it_was(name):
    model = network().train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    x, y = examples(network(), 10)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    ATTACKS[name](model, x, y, ThreatModel("linf", 0.05))
    assert torch.equal(torch.rand(3), expected)
    assert model.training
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("name", ATTACKS)
def test_logits_that_are_not_finite_are_no_robustness(name):
    model = network()
    with torch.no_grad():
        model[5].bias[0] = float("nan")
    with pytest.raises(NotMeasuredError, match="not finite"):
        ATTACKS[name](
            model, torch.rand(4, 1, 8, 8), torch.zeros(4).long(), ThreatModel("linf", 0.1)
        )


@pytest.mark.parametrize("name", ATTACKS)
def test_progress_ends_where_it_said(name):
    model = network()
    x, y = examples(model, 30)
    told = []
    ATTACKS[name](model, x, y, ThreatModel("linf", 0.02), progress=lambda *at: told.append(at))
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    assert len({total for _, total in told}) == 1
    assert told[-1][0] == told[-1][1]


def linear(classes=2, pixels=16):
    """Weights and images for which nothing meets the box."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(pixels, classes))
    side = int(pixels**0.5)
    x = 0.4 + 0.2 * torch.rand(40, 1, side, side)
    with torch.no_grad():
        model[1].bias.sub_(model(x).mean(0))
        y = model(x).argmax(1)
    return model, x, y


def exact_distance(model, x, y, norm):
    """``min_t (z_y - z_t) / ||w_y - w_t||`` in the dual norm."""
    weight = model[1].weight.detach()
    with torch.no_grad():
        logits = model(x)
    dual = {"linf": 1, "l2": 2, "l1": torch.inf}[norm]
    gaps = logits.gather(1, y[:, None]) - logits
    slopes = torch.linalg.vector_norm(weight[y][:, None] - weight[None], ord=dual, dim=2)
    ways = torch.where(slopes > 0, gaps / slopes, torch.inf)
    return ways.amin(1)


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
@pytest.mark.parametrize("classes", [2, 6])
@pytest.mark.parametrize("targets", [0, 5])
def test_fab_finds_the_exact_distance_on_a_linear_network(norm, classes, targets):
    model, x, y = linear(classes)
    exact = exact_distance(model, x, y, norm)
    found = fab(model, x, y, ThreatModel(norm, 1e-6), targets=min(targets, classes - 1), steps=60)
    assert bool((found.distance >= exact * (1 - 1e-4)).all())
    # beta and eta leave a misclassified point at most a few thousandths beyond the boundary
    torch.testing.assert_close(found.distance, exact, rtol=1e-2, atol=1e-6)
    torch.testing.assert_close(
        distance(found.nearest, x, norm).float(), found.distance, rtol=1e-4, atol=1e-6
    )
    with torch.no_grad():
        assert bool((model(found.nearest).argmax(1) != y).all())


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
@pytest.mark.parametrize("loss", ["ce", "dlr", "margin"])
def test_apgd_breaks_a_linear_network_just_beyond_the_exact_distance(norm, loss):
    model, x, y = linear(6)
    exact = exact_distance(model, x, y, norm)
    eps = float(exact.median())
    targets = {"ce": 0, "dlr": 5, "margin": 5}[loss]
    found = apgd(model, x, y, ThreatModel(norm, eps), loss=loss, targets=targets)
    assert not bool((~found.robust & (exact > eps * 1.0001)).any())
    if targets:  # the untargeted loss may climb towards another class than the nearest
        assert not bool((found.robust & (exact < eps * 0.98)).any())


def test_square_in_linf_reaches_the_corner_of_a_linear_network():
    """The worst point of the cube is a corner, and the remembered patches hide none from it."""
    model, x, y = linear(2)
    exact = exact_distance(model, x, y, "linf")
    eps = float(exact.median())
    found = square(model, x, y, ThreatModel("linf", eps))
    clear = (exact / eps - 1).abs() > 1e-3
    assert torch.equal(found.robust[clear], (exact > eps)[clear])
    assert found.forwards < 40 * 500  # most of the 5000 draws were known to be useless
