"""TrH and the Taylor terms against dense derivatives in float64."""

import math

import pytest
import torch
from torch import nn
from torch.func import functional_call, hessian, jacrev

from robaudit.errors import UsageError
from robaudit.training import Alp, At, Mart, Method, Standard, Taylor, Trades, TrH, kl_divergence
from robaudit.training.last_layer import last_layer_terms, soft_labels
from robaudit.training.moving import moved_weights
from robaudit.training.taylor import directional
from robaudit.training.trh import Passes, full_trace, top_layer, top_trace
from robaudit.types import ThreatModel

LINF = ThreatModel("linf", 0.1)


def relu_net(last=3):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Flatten(), nn.Linear(4, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, last)
    ).double()  # fmt: skip


@pytest.fixture
def task():
    generator = torch.Generator().manual_seed(3)
    x = torch.rand(6, 1, 2, 2, generator=generator, dtype=torch.float64)
    moved = (x + 0.3 * torch.rand(x.shape, generator=generator, dtype=torch.float64)).clamp(0, 1)
    return relu_net().eval(), x, moved, torch.tensor([0, 1, 2, 0, 1, 2])


def dense_trace(net, name, loss):
    """The trace of the whole Hessian of ``loss(forward)`` in one parameter."""
    weight = dict(net.named_parameters())[name].detach()

    def of(w):
        return loss(lambda z: functional_call(net, {name: w}, (z,)))

    matrix = hessian(of)(weight).reshape(weight.numel(), weight.numel())
    return float(matrix.trace().detach())


def clean_fixed(objective, net, x, moved, y):
    """The objective with the clean logits of its penalty held fixed, as the paper regularises."""
    with torch.no_grad():
        clean = net(x)

    def loss(forward):
        fixed = objective.loss(lambda z: clean if z is x else forward(z), x, moved, y)
        if objective.trace != "trades":
            return fixed
        own = nn.functional.cross_entropy
        return fixed - own(clean, y) + own(forward(x), y)

    return loss


OBJECTIVES = [
    Standard(), At(LINF), Trades(LINF, penalty=3.0), Alp(LINF, penalty=2.0), Mart(LINF, penalty=4.0)
]  # fmt: skip


@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda o: type(o).__name__)
def test_top_layer_trh_is_the_trace_of_the_dense_hessian(objective, task):
    net, x, moved, y = task
    passes = Passes(net, top_layer(net, x[:1]))
    objective.loss(passes, x, moved, y)
    expected = dense_trace(net, "4.weight", clean_fixed(objective, net, x, moved, y))
    assert float(top_trace(objective, passes, y).detach()) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda o: type(o).__name__)
def test_the_gradient_of_top_layer_trh_agrees_with_differences_in_every_weight(objective, task):
    net, x, moved, y = task
    layer = top_layer(net, x[:1])

    def value():
        passes = Passes(net, layer)
        objective.loss(passes, x, moved, y)
        return top_trace(objective, passes, y)

    parameters = list(net.parameters())
    gradients = torch.autograd.grad(value(), parameters)
    generator = torch.Generator().manual_seed(7)
    steps = [torch.randn(p.shape, generator=generator, dtype=torch.float64) for p in parameters]
    slope = sum(float((g * s).sum()) for g, s in zip(gradients, steps, strict=True))
    sides = []
    with torch.no_grad():
        for sign in (1, -2):
            for parameter, step in zip(parameters, steps, strict=True):
                parameter.add_(sign * 1e-6 * step)
            sides.append(float(value()))
    assert slope == pytest.approx((sides[0] - sides[1]) / 2e-6, rel=1e-5)


@pytest.mark.parametrize("objective", OBJECTIVES[:3], ids=lambda o: type(o).__name__)
def test_full_trh_is_the_sum_of_the_dense_traces_of_all_parameters(objective, task):
    net, x, moved, y = task
    net.train()
    trace = full_trace(objective, net, x, moved)
    assert net.training
    net.eval()
    loss = clean_fixed(objective, net, x, moved, y)
    expected = sum(dense_trace(net, name, loss) for name, _ in net.named_parameters())
    assert float(trace.detach()) == pytest.approx(expected, rel=1e-10)


def test_the_gradient_of_full_trh_agrees_with_differences(task):
    net, x, moved, _ = task
    weight = net[1].weight
    (gradient,) = torch.autograd.grad(full_trace(At(LINF), net, x, moved), weight)
    step = torch.randn(weight.shape, generator=torch.Generator().manual_seed(1)).double()
    sides = []
    with torch.no_grad():
        for sign in (1, -2):
            weight.add_(sign * 1e-6 * step)
            sides.append(float(full_trace(At(LINF), net, x, moved)))
    assert float((gradient * step).sum()) == pytest.approx((sides[0] - sides[1]) / 2e-6, rel=1e-5)


def test_trh_refuses_what_it_cannot_do(task):
    net, x, moved, y = task
    bent = nn.Sequential(relu_net(), nn.Softplus())
    with pytest.raises(UsageError, match="not the output of a linear layer"):
        Method(Standard(), trh=TrH()).descend(bent, x, y)
    with pytest.raises(UsageError, match="not for mart"):
        full_trace(Mart(LINF), net, x, moved)
    wide = nn.Sequential(nn.Flatten(), nn.Linear(4, 8000), nn.Linear(8000, 1000)).double()
    with pytest.raises(UsageError, match="Jacobians"):
        full_trace(At(LINF), wide, x, moved)


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("constant", [2.0] * 5),
        ("linear", [0.0, 0.19, 0.2, 0.98, 1.98]),
        ("multistep", [0.02, 0.02, 0.2, 0.2, 2.0]),
    ],
)
def test_lambda_follows_the_papers_schedules(schedule, expected):
    found = [TrH(2.0, schedule=schedule).weight_at(done) for done in (0, 0.095, 0.1, 0.49, 0.99)]
    assert found == pytest.approx(expected)


def test_directional_derivatives_are_those_of_finite_differences(task):
    net, x, _, _ = task
    u = Taylor(sigma=1.0).draw(net, torch.Generator().manual_seed(0))
    first, second = directional(net, x, u, 2)
    only, none = directional(net, x, u, 1)
    assert none is None
    torch.testing.assert_close(only, first)

    def at(t):
        moved = {name: p.detach() + t * u[name] for name, p in net.named_parameters()}
        return functional_call(net, moved, (x,))

    h = 1e-4
    torch.testing.assert_close(first, (at(h) - at(-h)) / (2 * h), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(second, (at(h) - 2 * at(0) + at(-h)) / h**2, rtol=1e-5, atol=1e-5)


def test_taylor_terms_are_equation_8_with_dense_derivatives(task):
    net, x, moved, _ = task
    own = {name: p.detach() for name, p in net.named_parameters()}
    taylor = Taylor(order=2, eta=0.2, sigma=0.3)
    u = taylor.draw(net, torch.Generator().manual_seed(0))
    flat = torch.cat([value.flatten() for value in u.values()])

    def derivatives(image):
        def logits(weights):
            return functional_call(net, weights, (image[None],))[0]

        slopes = jacrev(logits)(own)
        bends = hessian(logits)(own)
        J = torch.cat([part.reshape(3, -1) for part in slopes.values()], 1)
        rows = []
        for a in own:
            row = [bends[a][b].reshape(3, own[a].numel(), own[b].numel()) for b in own]
            rows.append(torch.cat(row, 2))
        H = torch.cat(rows, 1)
        return J @ flat, torch.einsum("i,kij,j->k", flat, H, flat)

    clean, bent = ([derivatives(image) for image in images] for images in (x, moved))
    expected = 0.0
    for order, weight in ((0, 0.2), (1, 0.1)):
        a = torch.stack([pair[order] for pair in clean])
        b = torch.stack([pair[order] for pair in bent])
        expected += weight * float(kl_divergence(a, b)) / len(x)
    assert float(taylor.terms(net, x, moved, u).detach()) == pytest.approx(expected, rel=1e-9)


def test_first_and_second_order_logits_are_what_sampled_weights_give(task):
    """The expansion's own claim: its error falls with the third power of sigma."""
    net, x, _, _ = task
    errors = []
    for sigma in (0.04, 0.02):
        u = Taylor(sigma=sigma).draw(net, torch.Generator().manual_seed(5))
        first, second = directional(net, x, u, 2)
        moved = {name: p.detach() + u[name] for name, p in net.named_parameters()}
        sampled = functional_call(net, moved, (x,))
        errors.append(float((net(x) + first + second / 2 - sampled).detach().norm()))
    assert errors[0] / errors[1] == pytest.approx(8, rel=0.1)


def test_the_gradient_of_the_taylor_terms_agrees_with_differences(task):
    net, x, moved, _ = task
    taylor = Taylor(order=2, sigma=0.5)
    u = taylor.draw(net, torch.Generator().manual_seed(0))
    weight = net[1].weight
    (gradient,) = torch.autograd.grad(taylor.terms(net, x, moved, u), weight)
    step = torch.randn(weight.shape, generator=torch.Generator().manual_seed(1)).double()
    sides = []
    with torch.no_grad():
        for sign in (1, -2):
            weight.add_(sign * 1e-6 * step)
            sides.append(float(taylor.terms(net, x, moved, u)))
    assert float((gradient * step).sum()) == pytest.approx((sides[0] - sides[1]) / 2e-6, rel=1e-5)


def test_u_has_the_stated_deviation_and_leaves_fixed_parameters_out():
    net = nn.Sequential(nn.Flatten(), nn.Linear(100, 100), nn.Linear(100, 2))
    net[2].requires_grad_(False)
    u = Taylor(sigma=0.01).draw(net, torch.Generator().manual_seed(0))
    assert set(u) == {"1.weight", "1.bias"}
    assert float(u["1.weight"].std()) == pytest.approx(0.01, rel=0.05)  # 7 standard errors


def plain_soft_label(gap, label):
    """One row, number by number: two k-ths for the class, the rest by the distance to the least."""
    k, least = len(gap), min(gap)
    others = sum(gap[c] - least for c in range(k) if c != label)
    return [
        2 / k if c == label else (1 - 2 / k) * (gap[c] - least) / others for c in range(k)
    ]  # fmt: skip


@pytest.mark.parametrize("order", [1, 2])
def test_last_layer_terms_are_those_written_out_plainly(order, task):
    _, x, moved, y = task
    net, y = relu_net(last=4).eval(), torch.tensor([0, 1, 2, 3, 1, 2])
    trades, eta = Trades(LINF, penalty=6.0), 0.3
    passes = Passes(net, net[-1])
    loss = trades.loss(passes, x, moved, y)
    found = loss + last_layer_terms(trades, passes, y, eta, order)

    sums = {}
    for name, images in (("clean", x), ("moved", moved)):
        own = nn.functional.cross_entropy(net(images), y)
        sums[name] = torch.autograd.grad(own, net[-1].weight)[0].sum(1).tolist()
    s, t = sums["clean"], sums["moved"]
    gap = [abs(a) - abs(b) for a, b in zip(s, t, strict=True)]
    back = [-g for g in gap]
    square = [b**2 - a**2 for a, b in zip(s, t, strict=True)]

    def away(gap, images):
        log_q = net(images).log_softmax(1)
        total = 0.0
        for i, label in enumerate(y.tolist()):
            for c, share in enumerate(plain_soft_label(gap, label)):
                if share > 0:
                    total += share * (math.log(share) - float(log_q[i, c].detach()))
        return total / len(y)

    natural = float(nn.functional.cross_entropy(net(x), y).detach())
    divergence = float(kl_divergence(net(x), net(moved)).detach()) / len(y)
    expected = natural * (1 - eta) + 6 * divergence
    expected += eta * 0.5 * (away(gap, moved) + away(back, x))
    if order == 2:
        expected += 0.5 * eta * 0.5 * (away(square, moved) + away(square, x))
    assert float(found.detach()) == pytest.approx(expected, rel=1e-12)


def test_a_step_with_last_layer_terms_descends_their_sum_with_the_loss(task):
    net, x, _, y = task
    net.train()
    method = Method(Trades(LINF, steps=1), taylor=Taylor(kind="last-layer", order=2))
    draws = [torch.Generator().manual_seed(4) for _ in range(2)]
    method.descend(net, x, y, draws[0])
    found = net[-1].weight.grad.clone()
    u = method.taylor.draw(net, draws[1])
    with moved_weights(net, u):
        moved = method.objective.examples(net, x, y, draws[1])
    passes = Passes(net, net[-1])
    loss = method.objective.loss(passes, x, moved, y)
    loss = loss + last_layer_terms(method.objective, passes, y, 0.3, 2)
    (expected,) = torch.autograd.grad(loss, net[-1].weight)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


def test_soft_labels_of_equal_gaps_and_of_two_classes_are_numbers():
    even = soft_labels(torch.zeros(5, dtype=torch.float64))
    torch.testing.assert_close(even.sum(1), torch.ones(5).double())
    torch.testing.assert_close(even.diagonal(), torch.full((5,), 0.4).double())
    torch.testing.assert_close(even[0, 1:], torch.full((4,), 0.15).double())
    assert soft_labels(torch.tensor([1.0, 3.0])).tolist() == [[1.0, 0.0], [0.0, 1.0]]


def test_last_layer_terms_are_refused_beside_another_loss(task):
    net, x, _, y = task
    method = Method(At(LINF, steps=1), taylor=Taylor(kind="last-layer"))
    with pytest.raises(UsageError, match="TRADES only"):
        method.descend(net, x, y)
