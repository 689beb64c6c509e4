"""Gradients that lie are found out and their module is named; sound networks are left in peace."""

import pytest
import torch
from support import masking
from support.masking import AFTER, FLAT, HONEST, LYING, Behind
from torch import nn

from robaudit.attacks.gradient_check import check_gradients
from robaudit.attacks.gradient_tests import along_lines
from robaudit.checkpoints import load, samples_dir
from robaudit.data import load_examples
from robaudit.errors import NotMeasuredError
from robaudit.types import ThreatModel

BALL = ThreatModel("linf", 0.15)
BALLS = [BALL, ThreatModel("l2", 1.0), ThreatModel("l1", 4.0)]


@pytest.fixture(scope="module")
def standard():
    return load(samples_dir() / "standard.pt", device="cpu").network


@pytest.fixture(scope="module")
def digits():
    return load_examples("digits", n=32)


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        (masking.NotANumber, "not finite"),
        (masking.OffTheGrid, "exactly zero for 100%"),
        (masking.Recognising, "exactly zero for 100%"),
        (masking.Infinite, "logits are not finite"),
        (masking.Rounding, "within the ball the logits do not move as their gradient says"),
        (masking.Decided, "steps that no gradient shows"),
        (masking.HardOnly, "steps that no gradient shows"),
        (masking.Winners, "steps that no gradient shows"),
    ],
)
@pytest.mark.parametrize("n", [32, 5])
def test_masked_gradients_are_found_out(kind, says, n, standard, digits):
    found = check_gradients(kind(standard), digits.x[:n], BALL, index=digits.index)
    assert any(says in problem for problem in found.problems), found


@pytest.mark.parametrize("ball", BALLS, ids=lambda ball: ball.norm)
@pytest.mark.parametrize("kind", LYING)
def test_a_gradient_of_another_function_is_found_out_and_its_module_named(
    kind, ball, standard, digits
):
    found = check_gradients(Behind(standard, LYING[kind]), digits.x, ball)
    assert found.problems
    assert found.faulty is not None
    assert found.faulty.name == "before"
    assert found.faulty.straight == (kind == "turned")


@pytest.mark.parametrize("kind", [kind for kind in LYING if kind != "projected"])  # of 64 pixels
def test_a_module_deep_inside_is_named_too(kind, digits):
    """It is handed features, not images."""
    torch.manual_seed(0)
    deep = nn.Sequential(
        nn.Conv2d(1, 6, 3, padding=1), nn.ReLU(),
        nn.Sequential(nn.BatchNorm2d(6), masking.Step(LYING[kind])),
        nn.Conv2d(6, 6, 3, padding=1), nn.GELU(), nn.Flatten(), nn.Linear(384, 10),
    ).eval()  # fmt: skip
    found = check_gradients(deep, digits.x, BALL)
    assert found.problems
    assert found.faulty.name == "2.1"


@pytest.mark.parametrize("kind", FLAT)
def test_a_rounding_is_named_as_one_to_go_straight_through(kind, standard, digits):
    found = check_gradients(Behind(standard, FLAT[kind]), digits.x, BALL)
    assert "exactly zero" in found.problems[0]
    assert (found.faulty.name, found.faulty.fault, found.faulty.straight) == (
        "before",
        "flat",
        True,
    )


def test_a_network_without_float64_is_checked_in_float32(standard, digits):
    class Narrow(masking.Around):
        def forward(self, x):
            if x.dtype != torch.float32:
                raise TypeError("float32 or nothing")
            return self.network(masking.LYING["projected"](x))

    found = check_gradients(Narrow(standard), digits.x, BALL)
    assert any("float32" in problem for problem in found.problems)


@pytest.mark.parametrize("ball", [*BALLS, ThreatModel("linf", 1e-6)], ids=str)
@pytest.mark.parametrize(
    "name", ["robust.pt", "overfit.pt", "standard.pt", "trades.safetensors", "smooth.safetensors"]
)
def test_the_samples_pass(name, ball, digits):
    model = load(samples_dir() / name, device="cpu")
    assert check_gradients(model, digits.x, ball, index=digits.index).problems == ()


@pytest.mark.parametrize("eps", [0.15, 1e-3])
@pytest.mark.parametrize("kind", HONEST)
def test_odd_inputs_pass(kind, eps, standard, digits):
    model = Behind(standard, HONEST[kind])
    assert check_gradients(model, digits.x, ThreatModel("linf", eps)).problems == ()


@pytest.mark.parametrize("kind", AFTER)
def test_odd_outputs_pass(kind, standard, digits):
    model = Behind(standard, after=AFTER[kind])
    assert check_gradients(model, digits.x, BALL).problems == ()


@pytest.mark.parametrize(
    "activation",
    [nn.ReLU, nn.LeakyReLU, nn.ELU, nn.SiLU, nn.GELU, nn.Tanh, nn.Sigmoid, nn.Softplus, nn.Mish,
     nn.Hardswish, nn.ReLU6],
)  # fmt: skip
@pytest.mark.parametrize("seed", range(3))
def test_untrained_networks_pass_whatever_bends_them(activation, seed, digits):
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), activation(), nn.MaxPool2d(2),
        nn.Conv2d(8, 8, 3, padding=1), activation(), nn.Flatten(), nn.Linear(128, 10),
    ).eval()  # fmt: skip
    with torch.no_grad():
        for parameter in model.parameters():
            parameter *= 2.0
    assert check_gradients(model, digits.x, BALL).problems == ()


def test_a_network_that_is_dead_in_the_ball_is_no_fault(standard, digits):
    """Certified networks have images around which they are constant, and are right to."""

    class Clipped(masking.Around):
        def forward(self, x):
            return self.network(x).clamp(-4, 4)

    model = Clipped(standard)
    x = digits.x
    leaf = x.clone().requires_grad_()
    top = model(leaf).topk(2, 1).values
    (slope,) = torch.autograd.grad((top[:, 0] - top[:, 1]).sum(), leaf)
    assert float((slope == 0).flatten(1).all(1).double().mean()) < 1  # some are, not all
    assert check_gradients(model, x, ThreatModel("linf", 0.01)).problems == ()


def test_no_gradient_at_all_is_refused(standard, digits):
    with pytest.raises(NotMeasuredError, match="no gradient in the image"):
        check_gradients(Behind(standard, lambda x: x.detach()), digits.x, BALL)


def test_modes_gradients_and_random_state_are_left_alone(digits):
    model = Behind(masking.Step(nn.Sequential(nn.Flatten(), nn.Linear(64, 10))), LYING["negated"])
    model.train()
    torch.manual_seed(1)
    check_gradients(model, digits.x, BALL)
    after = torch.rand(2)
    torch.manual_seed(1)
    assert torch.equal(after, torch.rand(2))
    assert all(module.training for module in model.modules())
    assert all(p.grad is None and p.requires_grad for p in model.parameters())


def test_a_lines_integral_is_the_change_of_a_polynomial():
    """The midpoint rule is exact for a quadratic, whose gradient is linear along a line."""
    torch.manual_seed(0)
    start, end = torch.rand(2, 6, 1, 2, 2).double()
    bend = torch.randn(3, 4).double()

    def forward(x):
        return (x.flatten(1) @ bend.T).square()

    u = torch.randn(6, 3).double()
    assert along_lines(forward, start, end, u, 1).against == 0
    turned = LYING["negated"]
    wrong = along_lines(lambda x: forward(turned(x)), start, end, u, 1)
    assert wrong.against == wrong.tested == 6
    assert wrong.ratio == pytest.approx(-1)
