"""Both measures where the robust loss is a quadratic, and what must hold on any network."""

import pytest
import torch
from support.console import SAMPLES
from torch import nn
from torch.nn import functional as F

import robaudit as ra
from robaudit.attacks import pgd
from robaudit.errors import UsageError
from robaudit.flatness import average, worst
from robaudit.flatness.weights import draw_for, in_ball, movable_weights, on_sphere
from robaudit.protocols import STUTZ_STEP_OVER_EPS
from robaudit.types import ThreatModel

THREAT = ThreatModel("linf", 0.1)


class Quadratic(nn.Module):
    """Cross-entropy ``q = 1 + (||a||^2 + ||b||^2) / 2 + u^T x`` for label 0, ``u > 0``.

    ``log(1 + exp(z_1 - z_0)) = q`` for ``z_1 - z_0 = log(exp(q) - 1)``.
    """

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.a = nn.Parameter(torch.randn(40) / 10)
        self.b = nn.Parameter(torch.randn(5, 8) / 10)
        self.register_buffer("u", torch.tensor([0.1, 0.2, 0.3, 0.4]))

    def forward(self, x):
        squares = (self.a.square().sum() + self.b.square().sum()) / 2
        q = 1 + squares + x.flatten(1) @ self.u
        return torch.stack([torch.zeros_like(q), torch.log(torch.expm1(q))], 1)


@pytest.fixture
def quadratic():
    return Quadratic().double()


@pytest.fixture
def images():
    torch.manual_seed(3)
    return 0.2 + 0.6 * torch.rand(12, 1, 2, 2, dtype=torch.float64), torch.zeros(12).long()


def squares(model):
    return float(model.a.detach().square().sum() + model.b.detach().square().sum())


@pytest.mark.parametrize("measure", [average, worst])
def test_the_reference_of_the_quadratic(measure, quadratic, images):
    want = 1 + squares(quadratic) / 2 + float((images[0] + 0.1).flatten(1).mean(0) @ quadratic.u)
    assert measure(quadratic, *images, THREAT, xi=0.1).reference == pytest.approx(want, rel=1e-9)


@pytest.mark.parametrize("protocol", ["default", "stutz2021"])
def test_average_of_the_quadratic(quadratic, images, protocol):
    """``w^T nu + xi^2 ||w||^2 / 2`` for each draw; the first term is zero on average."""
    found = average(quadratic, *images, THREAT, xi=0.4, perturbations=6, protocol=protocol)
    weights = movable_weights(quadratic)
    draws = [on_sphere(weights, 0.4, draw_for(0, "average", j)) for j in range(6)]
    want = [
        sum(float((weights[name] * nu[name]).sum()) for name in weights)
        + 0.4**2 * squares(quadratic) / 2
        for nu in draws
    ]
    rises = [one - found.reference for one in found.perturbed]
    assert rises == pytest.approx(want, rel=1e-6)
    assert found.value == pytest.approx(sum(want) / 6, rel=1e-6)


def test_average_of_the_quadratic_approaches_its_expectation(quadratic, images):
    found = average(quadratic, *images, THREAT, xi=0.4, perturbations=200, steps=8)
    want = 0.4**2 * squares(quadratic) / 2
    assert abs(found.value - want) < 4 * found.standard_error_perturbations
    inside = average(quadratic, *images, THREAT, xi=0.4, perturbations=200, steps=8, ball="ball")
    # E ||nu||^2 = d / (d + 2) of the radius squared, in each of two balls of d = 40.
    assert abs(inside.value - want * 40 / 42) < 4 * inside.standard_error_perturbations


@pytest.mark.parametrize("protocol", ["default", "stutz2021"])
def test_worst_of_the_quadratic(quadratic, images, protocol):
    """Outwards along the weights: ``((1 + xi)^2 - 1) ||w||^2 / 2``."""
    found = worst(
        quadratic, *images, THREAT, xi=0.05, passes=60, restarts=2, protocol=protocol
    )  # fmt: skip
    assert found.value == pytest.approx((1.05**2 - 1) * squares(quadratic) / 2, rel=1e-3)


def test_a_draw_inside_the_ball_is_uniform():
    """``(||nu|| / (xi ||w||))^d`` is uniform: its mean 1/2 and variance 1/12 over 400 draws."""
    w = {"w": torch.ones(3)}
    shares = torch.stack(
        [in_ball(w, 0.5, draw_for(0, "t", j))["w"].norm() / (0.5 * 3**0.5) for j in range(400)]
    )
    assert abs(float((shares**3).mean()) - 0.5) < 4 / (12 * 400) ** 0.5


@pytest.mark.parametrize(
    "name",
    ["standard.pt", "robust.pt", "overfit.pt", "trades.safetensors", "smooth.safetensors"]
    + [f"epochs/epoch_{epoch:03d}.pt" for epoch in (1, 5, 12, 30, 60, 100, 160, 240)],
)  # fmt: skip
def test_worst_is_not_below_average_on_the_samples(name):
    model, examples = ra.load(SAMPLES / name, device="cpu"), ra.load_examples("digits", n=32)
    options = {"xi": 0.02, "steps": 5}
    random = average(model, examples.x, examples.y, examples_threat(), perturbations=2, **options)
    found = worst(
        model, examples.x, examples.y, examples_threat(), restarts=1, passes=10, **options
    )
    assert found.value >= random.value
    for tensor, nu in found.nu.items():
        norm = float(model.get_parameter(tensor).detach().norm())
        assert float(nu.norm()) <= 0.02 * norm * (1 + 1e-5)


def examples_threat():
    return ThreatModel("linf", 0.15)


def test_scaled_networks_have_the_same_flatness_and_another_eigenvalue():
    """Weights times a half and twice with the next ones undoing it: the function stays."""
    from robaudit.curvature import spectrum

    torch.manual_seed(0)
    x, y = torch.rand(32, 1, 4, 4), torch.randint(3, (32,))
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, 12), nn.ReLU(), nn.Linear(12, 3))
    found = []
    for factor in (1.0, 0.5, 2.0):
        with torch.no_grad():
            scaled = nn.Sequential(
                nn.Flatten(), nn.Linear(16, 12), nn.ReLU(), nn.Linear(12, 3)
            )  # fmt: skip
            scaled.load_state_dict(net.state_dict())
            scaled[1].weight.mul_(factor)
            scaled[1].bias.mul_(factor)
            scaled[3].weight.div_(factor)
        found.append(
            (
                average(scaled, x, y, THREAT, perturbations=3, steps=5).value,
                worst(scaled, x, y, THREAT, xi=0.01, restarts=2, steps=5).value,
                float(spectrum(scaled, x, y, top=1).largest[0]),
            )
        )
    for flat, sharp, eigenvalue in found[1:]:
        assert flat == pytest.approx(found[0][0], rel=1e-4, abs=1e-6)
        assert sharp == pytest.approx(found[0][1], rel=1e-4, abs=1e-6)
        assert abs(eigenvalue / found[0][2] - 1) > 0.05


@pytest.fixture
def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(36, 8), nn.ReLU(), nn.Linear(8, 3)).eval()


@pytest.fixture
def batch():
    torch.manual_seed(1)
    return torch.rand(40, 1, 6, 6), torch.randint(3, (40,))


def test_the_published_protocol_attacks_the_reference_harder(model, batch):
    step = STUTZ_STEP_OVER_EPS * THREAT.eps
    found = average(model, *batch, THREAT, steps=5, perturbations=2, protocol="stutz2021")
    strong = pgd(model, *batch, THREAT, steps=5, restarts=10, step_size=step)
    assert found.reference == pytest.approx(float(strong.loss.double().mean()), rel=1e-6)
    for j, mean in enumerate(found.perturbed):
        weights = movable_weights(model)
        nu = on_sphere(weights, 0.5, draw_for(0, "average", j))
        moved = nn.Sequential(nn.Flatten(), nn.Linear(36, 8), nn.ReLU(), nn.Linear(8, 3))
        moved.load_state_dict({name: weights[name] + nu[name] for name in weights})
        once = pgd(moved, *batch, THREAT, steps=5, restarts=1, step_size=step)
        assert mean == pytest.approx(float(once.loss.double().mean()), rel=1e-5)


def test_the_published_worst_case_keeps_its_last_pass_and_starts_anew(model, batch):
    """Restarts after the first begin alike in both protocols, but a best pass is never below.

    Nothing of the reference's examples gets in, so other ones change nothing.
    """
    options = {"xi": 0.05, "restarts": 4, "passes": 3, "weight_step": 0.2, "step_size": 0.05}
    published = worst(model, *batch, THREAT, protocol="stutz2021", **options)
    best = worst(model, *batch, THREAT, **options)
    assert all(b >= p for b, p in zip(best.restarts[1:], published.restarts[1:], strict=True))
    reference = pgd(model, *batch, THREAT, steps=1)
    other = worst(model, *batch, THREAT, protocol="stutz2021", reference=reference, **options)
    assert other.restarts == published.restarts
    assert other.value == pytest.approx(
        max(other.restarts) - float(reference.loss.double().mean()), rel=1e-9
    )


@pytest.mark.parametrize("measure", [average, worst])
def test_the_published_protocol_has_its_own_restarts(measure, model, batch):
    more = {"restarts": 2} if measure is average else {"attack_restarts": 2}
    with pytest.raises(UsageError, match="stutz2021 attacks perturbed networks once"):
        measure(model, *batch, THREAT, protocol="stutz2021", **more)


def test_drawing_stops_at_the_tolerance(model, batch):
    options = {"steps": 3, "perturbations": 12, "xi": 0.2}
    whole = average(model, *batch, THREAT, **options)
    stopped = average(model, *batch, THREAT, tolerance=10.0, **options)
    assert stopped.perturbed == whole.perturbed[:5]
    assert stopped.standard_error < 10
    never = average(model, *batch, THREAT, tolerance=1e-9, **options)
    assert never.perturbed == whole.perturbed


@pytest.mark.parametrize("measure", [average, worst])
def test_the_parts_make_up_the_whole(measure, model, batch):
    found = measure(model, *batch, THREAT, steps=3)
    right = model(batch[0]).argmax(1) == batch[1]
    assert 0 < int(right.sum()) < len(right)
    assert {name: part.n for name, part in found.parts.items()} == {
        "correct": int(right.sum()), "incorrect": int((~right).sum()),
    }  # fmt: skip
    for field in ("value", "reference"):
        mixed = sum(part.n * getattr(part, field) for part in found.parts.values()) / 40
        assert mixed == pytest.approx(getattr(found, field), rel=1e-6)
    reference = pgd(model, *batch, THREAT, steps=3).loss.double()
    assert found.parts["correct"].reference == pytest.approx(
        float(reference[right].mean()), rel=1e-6
    )


def test_the_clean_loss_has_a_flatness_too(model, batch):
    found = average(model, *batch, None, perturbations=3)
    weights = movable_weights(model)
    clean = F.cross_entropy(model(batch[0]), batch[1]).detach()
    assert found.reference == pytest.approx(float(clean), rel=1e-6)
    for j, mean in enumerate(found.perturbed):
        nu = on_sphere(weights, 0.5, draw_for(0, "average", j))
        moved = {name: weights[name] + nu[name] for name in weights}
        logits = torch.func.functional_call(model, moved, (batch[0],))
        assert mean == pytest.approx(float(F.cross_entropy(logits, batch[1])), rel=1e-5)
    sharp = worst(model, *batch, None, xi=0.02, restarts=2)
    assert sharp.value > 0
    moved = {name: weights[name] + nu for name, nu in sharp.nu.items()}
    after = F.cross_entropy(torch.func.functional_call(model, moved, (batch[0],)), batch[1])
    assert sharp.value == pytest.approx(float((after - clean).detach()), rel=1e-4)
