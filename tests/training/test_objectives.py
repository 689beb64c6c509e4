"""The objectives against their formulas written out, and the inner maximisation's promises."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from robaudit.training import Alp, At, Mart, Standard, Trades, kl_divergence, maximise
from robaudit.training.objectives import boosted_cross_entropy
from robaudit.types import ThreatModel

LINF = ThreatModel("linf", 0.1)
L2 = ThreatModel("l2", 0.5)
L1 = ThreatModel("l1", 1.0)


def small_net(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3)
    )


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(1)
    x = torch.rand(6, 1, 4, 4, generator=generator)
    return x, torch.tensor([0, 1, 2, 0, 1, 2])


@given(st.integers(0, 2**31), st.floats(0.1, 5))
@settings(max_examples=25, deadline=None)
def test_kl_divergence_is_the_sum_of_p_log_p_over_q(seed, scale):
    generator = torch.Generator().manual_seed(seed)
    clean, moved = scale * torch.randn(2, 4, 5, generator=generator, dtype=torch.float64)
    p, q = clean.softmax(1), moved.softmax(1)
    expected = sum(p[i, c] * torch.log(p[i, c] / q[i, c]) for i in range(4) for c in range(5))
    assert kl_divergence(clean, moved) == pytest.approx(float(expected), abs=1e-10)
    assert kl_divergence(clean, moved) >= 0
    assert float(kl_divergence(clean, clean)) == 0


def test_kl_gradient_in_the_perturbed_logits_is_q_minus_p():
    clean, moved = torch.randn(2, 3, 4, dtype=torch.float64)
    moved.requires_grad_(True)
    (gradient,) = torch.autograd.grad(kl_divergence(clean, moved), moved)
    torch.testing.assert_close(gradient, moved.softmax(1) - clean.softmax(1))


def test_kl_gradient_in_the_clean_logits_agrees_with_differences():
    clean = torch.randn(2, 4, dtype=torch.float64, requires_grad=True)
    moved = torch.randn(2, 4, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda z: kl_divergence(z, moved), clean)


def test_trades_loss_is_its_formula(batch):
    x, y = batch
    net = small_net().eval()
    loss = Trades(LINF, steps=3, penalty=6.0)(net, x, y, torch.Generator().manual_seed(2))
    with torch.no_grad():
        target = net(x)
    moved = maximise(
        lambda z: kl_divergence(target, net(z)),
        x, LINF, steps=3, generator=torch.Generator().manual_seed(2),
    )  # fmt: skip
    p, q = net(x).softmax(1), net(moved).softmax(1)
    expected = -torch.log(p[range(6), y]).mean() + 6 * (p * torch.log(p / q)).sum(1).mean()
    torch.testing.assert_close(loss, expected)


def test_trades_without_its_divergence_is_standard_training(batch):
    x, y = batch
    net = small_net().eval()
    loss = Trades(LINF, steps=1, penalty=0.0)(net, x, y)
    torch.testing.assert_close(loss, Standard()(net, x, y))


def test_at_loss_is_the_cross_entropy_at_the_maximised_images(batch):
    x, y = batch
    net = small_net().eval()
    loss = At(LINF, steps=4)(net, x, y, torch.Generator().manual_seed(2))
    moved = maximise(
        lambda z: F.cross_entropy(net(z), y, reduction="sum"),
        x, LINF, steps=4, generator=torch.Generator().manual_seed(2),
    )  # fmt: skip
    torch.testing.assert_close(loss, F.cross_entropy(net(moved), y))
    assert loss > Standard()(net, x, y)


@pytest.mark.parametrize("kind", [At, Trades, Mart, Alp])
def test_making_examples_leaves_mode_and_gradients_alone_and_statistics_see_the_batch_once(
    kind, batch
):
    x, y = batch
    net = small_net().train()
    net[2].eval()
    kind(LINF, steps=5)(net, x, y)
    assert net.training
    assert net[1].training
    assert not net[2].training
    # The others forward the clean and the perturbed batch, AT only the perturbed one.
    assert int(net[1].num_batches_tracked) == (1 if kind is At else 2)
    assert all(p.grad is None for p in net.parameters())


def test_at_examples_do_not_depend_on_their_neighbours(batch):
    x, y = batch
    net = small_net().train()
    seen = []

    def record(module, inputs, output):
        seen.append(module.training)

    net[1].register_forward_hook(record)
    At(LINF, steps=3)(net, x, y)
    # In eval mode batch norm treats every image alone; only the loss itself runs in train mode.
    assert seen == [False, False, False, True]


def double_batch():
    generator = torch.Generator().manual_seed(3)
    x = torch.rand(5, 1, 4, 4, generator=generator, dtype=torch.float64)
    moved = (x + 0.2 * torch.rand(x.shape, generator=generator, dtype=torch.float64)).clamp(0, 1)
    net = small_net().double().eval().requires_grad_(False)
    return net, x, moved, torch.tensor([0, 1, 2, 2, 1])


def test_mart_is_its_formula_written_out():
    net, x, moved, y = double_batch()
    p, q = net(x).softmax(1), net(moved).softmax(1)
    expected = 0.0
    for i, label in enumerate(y.tolist()):
        rival = max(float(q[i, c]) for c in range(3) if c != label)
        divergence = sum(float(p[i, c] * torch.log(p[i, c] / q[i, c])) for c in range(3))
        expected -= math.log(float(q[i, label])) + math.log(1 - rival)
        expected += 5.0 * divergence * (1 - float(p[i, label]))
    loss = Mart(LINF, penalty=5.0).loss(net, x, moved, y)
    assert float(loss) == pytest.approx(expected / 5, rel=1e-12)


def test_boosted_cross_entropy_stays_finite_where_the_rival_has_all_the_probability():
    logits = torch.tensor([[0.0, 200.0, -5.0]], requires_grad=True)
    loss = boosted_cross_entropy(logits, torch.tensor([0]))
    assert float(loss.detach()) == pytest.approx(400, rel=1e-4)  # 200 each: log p_0, log(1 - p_1)
    (gradient,) = torch.autograd.grad(loss.sum(), logits)
    assert gradient.isfinite().all()


def test_boosted_cross_entropy_of_two_classes_is_the_cross_entropy_twice():
    logits = torch.randn(6, 2, dtype=torch.float64)
    y = torch.tensor([0, 1, 1, 0, 1, 0])
    expected = 2 * F.cross_entropy(logits, y, reduction="none")
    torch.testing.assert_close(boosted_cross_entropy(logits, y), expected)


def test_alp_is_its_formula_written_out():
    net, x, moved, y = double_batch()
    p, q = net(x).softmax(1), net(moved).softmax(1)
    squares = [(float(p[i, c]) - float(q[i, c])) ** 2 for i in range(5) for c in range(3)]
    expected = -float(torch.log(q[range(5), y]).mean()) + 0.7 * sum(squares) / 5
    loss = Alp(LINF, penalty=0.7).loss(net, x, moved, y)
    assert float(loss) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("kind", [Trades, Mart, Alp])
def test_gradients_of_the_penalties_agree_with_differences(kind):
    net, x, moved, y = double_batch()
    top = net[4].weight
    top.requires_grad_(True)
    loss = kind(LINF, penalty=2.0).loss(net, x, moved, y)
    (gradient,) = torch.autograd.grad(loss, top)
    step = torch.randn(top.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        sides = []
        for sign in (1, -1):
            top.add_(sign * 1e-5 * step)
            sides.append(float(kind(LINF, penalty=2.0).loss(net, x, moved, y)))
            top.sub_(sign * 1e-5 * step)
    assert float((gradient * step).sum()) == pytest.approx((sides[0] - sides[1]) / 2e-5, rel=1e-6)


@pytest.mark.parametrize("threat", [LINF, L2, L1], ids=["linf", "l2", "l1"])
@given(seed=st.integers(0, 2**31), steps=st.integers(0, 4))
@settings(max_examples=20, deadline=None)
def test_maximised_images_lie_in_the_ball_and_in_the_box(threat, seed, steps):
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(5, 1, 4, 4, generator=generator)
    weight = torch.randn(16, generator=generator)
    moved = maximise(
        lambda z: (z.flatten(1) @ weight).sum(), x, threat, steps=steps, generator=generator
    )
    delta = (moved - x).flatten(1)
    lengths = delta.norm({"linf": torch.inf, "l2": 2, "l1": 1}[threat.norm], dim=1)
    # Subtracting two float32 images loses at most one rounding of each.
    assert (lengths <= threat.eps * (1 + 1e-5)).all()
    assert moved.min() >= 0
    assert moved.max() <= 1
    assert not moved.requires_grad


@pytest.mark.parametrize("threat", [LINF, L2], ids=["linf", "l2"])
def test_a_linear_objective_is_maximised_exactly(threat):
    x = torch.full((3, 1, 4, 4), 0.5)
    weight = torch.randn(16, generator=torch.Generator().manual_seed(0))
    moved = maximise(lambda z: (z.flatten(1) @ weight).sum(), x, threat, steps=200)
    dual = weight.abs().sum() if threat.norm == "linf" else weight.norm()
    gain = (moved - x).flatten(1) @ weight
    torch.testing.assert_close(gain, (threat.eps * dual).expand(3), rtol=1e-3, atol=0)


def test_start_fills_the_l2_ball_uniformly():
    x = torch.full((4000, 1, 1, 2), 0.5)
    moved = maximise(
        lambda z: z.sum(), x, ThreatModel("l2", 0.4), steps=0,
        generator=torch.Generator().manual_seed(0),
    )  # fmt: skip
    inside = ((moved - x).flatten(1).norm(dim=1) < 0.2).double().mean()
    # In the plane a quarter of the area lies within half the radius; five standard errors.
    assert float(inside) == pytest.approx(0.25, abs=5 * (0.25 * 0.75 / 4000) ** 0.5)
