import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from robaudit.errors import NotMeasuredError, UsageError
from robaudit.flatness import average, worst
from robaudit.flatness.weights import draw_for, in_ball, movable_weights, on_sphere
from robaudit.types import ThreatModel

THREAT = ThreatModel("linf", 0.1)


@pytest.fixture
def model():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 8), nn.ReLU(),
        nn.Linear(8, 3),
    ).eval()  # fmt: skip


@pytest.fixture
def batch():
    torch.manual_seed(1)
    return torch.rand(40, 1, 6, 6), torch.randint(3, (40,))


def test_perturbations_have_the_asked_norm_per_tensor(model):
    weights = movable_weights(model)
    assert not any(name.startswith("1.") for name in weights)  # batch norm is left out
    for name, nu in on_sphere(weights, 0.5, draw_for(0, "t", 0)).items():
        assert float(nu.norm()) == pytest.approx(0.5 * float(weights[name].norm()), rel=1e-5)
    for name, nu in in_ball(weights, 0.5, draw_for(0, "t", 0)).items():
        assert float(nu.norm()) <= 0.5 * float(weights[name].norm()) * (1 + 1e-5)


def test_zero_tensors_are_left_alone(model):
    with torch.no_grad():
        model[4].bias.zero_()
    assert "4.bias" not in movable_weights(model)


def scaled(model, factor):
    """The same function with one layer scaled by ``factor`` and the next by its inverse."""
    copy = nn.Sequential(*model)
    with torch.no_grad():
        copy[4].weight.mul_(factor)
        copy[4].bias.mul_(factor)
        copy[6].weight.div_(factor)
    return copy


@pytest.mark.parametrize("factor", [0.5, 2.0])
@pytest.mark.parametrize("measure", [average, worst])
def test_scale_invariance(measure, factor, model, batch):
    """Powers of two only move exponents; what is left is rounding in sums of squares."""
    options = {"steps": 5} | ({"perturbations": 3} if measure is average else {"restarts": 2})
    before = measure(model, *batch, THREAT, **options)
    after = measure(scaled(model, factor), *batch, THREAT, **options)
    assert after.value == pytest.approx(before.value, rel=1e-4, abs=1e-6)
    assert after.reference == pytest.approx(before.reference, rel=1e-6)


@pytest.mark.parametrize("measure", [average, worst])
def test_the_model_is_left_bit_for_bit(measure, model, batch):
    before = {name: value.clone() for name, value in model.state_dict().items()}

    class StopError(Exception):
        pass

    def stop(done, total):
        if done > total // 3:
            raise StopError

    measure(model, *batch, THREAT, steps=2)
    with pytest.raises(StopError):
        measure(model, *batch, THREAT, steps=2, progress=stop)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_a_given_reference_changes_nothing(model, batch):
    from robaudit.attacks import pgd

    reference = pgd(model, *batch, THREAT, steps=4, seed=3)
    for measure in (average, worst):
        own = measure(model, *batch, THREAT, steps=4, seed=3)
        given = measure(model, *batch, THREAT, steps=4, seed=3, reference=reference)
        assert given.value == own.value


class Logistic(nn.Module):
    """``z = (w^T x, 0)``: every robust loss below has a closed form."""

    def __init__(self, w):
        super().__init__()
        self.w = nn.Parameter(torch.tensor(w))

    def forward(self, x):
        score = x.flatten(1) @ self.w
        return torch.stack([score, torch.zeros_like(score)], 1)


def robust_loss(w, x, eps):
    """Label 0, linf ball well inside the box: the worst score is ``w^T x - eps ||w||_1``."""
    return F.softplus(-(x.flatten(1) @ w - eps * w.abs().sum())).mean()


def test_worst_case_of_a_logistic_model_matches_its_closed_form():
    """One example, so that the robust loss falls in the margin alone: the worst weights minimise
    ``w^T x - eps ||w||_1`` in the ball: ``nu = -xi ||w|| u``, ``u`` along ``x - eps sign(w)``.
    """
    model = Logistic([1.0, -2.0, 1.5, 0.5])
    x, y = torch.tensor([0.6, 0.4, 0.5, 0.7]).reshape(1, 1, 2, 2), torch.zeros(1).long()
    w, xi = model.w.detach(), 0.05
    found = worst(model, x, y, THREAT, xi=xi, restarts=3, passes=40)
    u = x.flatten() - THREAT.eps * w.sign()
    at = w - xi * w.norm() * u / u.norm()
    want = robust_loss(at, x, THREAT.eps) - robust_loss(w, x, THREAT.eps)
    assert found.value == pytest.approx(float(want), rel=1e-4)


def test_average_case_of_a_logistic_model_matches_direct_evaluation():
    """The same draws pushed through the closed form of the robust loss."""
    model = Logistic([1.0, -2.0, 1.5, 0.5])
    torch.manual_seed(2)
    x, y = 0.3 + 0.4 * torch.rand(20, 1, 2, 2), torch.zeros(20).long()
    w = model.w.detach()
    found = average(model, x, y, THREAT, xi=0.3, perturbations=6, seed=9)
    want = [
        float(
            robust_loss(w + on_sphere({"w": w}, 0.3, draw_for(9, "average", j))["w"], x, THREAT.eps)
        )
        for j in range(6)
    ]
    assert found.perturbed == pytest.approx(want, rel=1e-5)
    assert found.value == pytest.approx(
        sum(want) / 6 - float(robust_loss(w, x, THREAT.eps)), rel=1e-4
    )


def test_worst_is_not_below_average_at_the_same_radius(model, batch):
    random = average(model, *batch, THREAT, xi=0.05, steps=10)
    ascended = worst(model, *batch, THREAT, xi=0.05, steps=10, restarts=3)
    assert ascended.value >= random.value
    for name, nu in ascended.nu.items():
        weight = model.get_parameter(name)
        assert float(nu.norm()) <= 0.05 * float(weight.detach().norm()) * (1 + 1e-5)


def test_standard_error_over_perturbations_covers():
    """Two independent halves of the draws differ by less than 5 of their standard errors."""
    model = Logistic([1.0, -2.0, 1.5, 0.5])
    torch.manual_seed(2)
    x, y = 0.3 + 0.4 * torch.rand(50, 1, 2, 2), torch.zeros(50).long()
    a = average(model, x, y, THREAT, xi=0.3, perturbations=30, steps=5, seed=1)
    b = average(model, x, y, THREAT, xi=0.3, perturbations=30, steps=5, seed=2)
    spread = math.hypot(a.standard_error_perturbations, b.standard_error_perturbations)
    assert abs(a.value - b.value) < 5 * spread


@pytest.mark.parametrize("xi", [0.0, -0.5, float("nan"), float("inf")])
def test_a_radius_that_is_none_is_refused(xi, model, batch):
    with pytest.raises(UsageError, match="xi of average flatness must be a positive number"):
        average(model, *batch, THREAT, xi=xi)


def test_no_weights_to_perturb(batch):
    bare = nn.Sequential(nn.BatchNorm2d(1), nn.Flatten())
    with pytest.raises(NotMeasuredError, match="no weights to perturb"):
        worst(bare, *batch, THREAT)


def test_worst_case_is_never_negative():
    """Where the attack is too weak to find a worse point, the unperturbed weights are the worst."""

    class Fixed(nn.Module):
        """Loses nothing by any weight change that is allowed: the weight only scales a zero."""

        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.ones(2))

        def forward(self, x):
            return torch.stack([x.sum((1, 2, 3)), -x.sum((1, 2, 3))], 1) - 1e-3 * self.w.square()

    torch.manual_seed(0)
    found = worst(Fixed(), torch.rand(9, 1, 2, 2), torch.zeros(9).long(), THREAT, steps=1, passes=1)
    assert found.value >= 0
