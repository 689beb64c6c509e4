"""Gradients at the edges of the box are those just inside, values those of the image itself."""

import sys

import pytest
import torch
from support.attacks import ATTACKS
from torch import nn
from torch.nn import functional as F

from robaudit import attacks, flatness
from robaudit.attacks.objectives import margin
from robaudit.checkpoints import load, samples_dir
from robaudit.data import load_examples
from robaudit.engine import Runner, edge_nudge
from robaudit.engine.edges import mixture_gradient
from robaudit.types import ThreatModel

CPU = torch.device("cpu")
BALL = ThreatModel("linf", 0.15)


class ZeroAtBounds(torch.autograd.Function):
    """``clamp(x, 0, 1)`` with the gradient that it has from PyTorch 2.14 on, in every version."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.clamp(0, 1)

    @staticmethod
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        return gradient * ((x > 0) & (x < 1))


class Before(nn.Module):
    """A network behind a function of its input that changes nothing in the box."""

    def __init__(self, function, network):
        super().__init__()
        self.function, self.network = function, network

    def forward(self, x):
        return self.network(self.function(x))


def corner(x):
    """Clamps a quarter of the image alone."""
    half = x.shape[-1] // 2
    top = torch.cat([ZeroAtBounds.apply(x[..., :half, :half]), x[..., :half, half:]], -1)
    return torch.cat([top, x[..., half:, :]], -2)


SAME = {
    "clamp": ZeroAtBounds.apply,
    "relu": F.relu,
    "hardtanh": lambda x: F.hardtanh(x, 0, 1),
    "after normalisation": lambda x: ZeroAtBounds.apply((x - 0.5) / 0.25 / 4 + 0.5),
    "a corner": corner,
    "grey levels": lambda x: ZeroAtBounds.apply(x * 255 / 255),
}


@pytest.fixture(scope="module")
def robust():
    return load(samples_dir() / "robust.pt", device="cpu")


@pytest.fixture(scope="module")
def digits():
    return load_examples("digits", n=12)


@pytest.mark.parametrize("kind", SAME)
def test_a_blind_network_is_seen_and_its_gradient_is_the_plain_one(kind, robust, digits):
    model = Before(SAME[kind], robust)
    assert 0 < edge_nudge(model, digits.x) < 1e-5

    def gradient(network):
        runner = Runner(network, CPU)
        return *runner.gradient(margin, digits.x, digits.y), runner.forwards

    values, plain, logits, _ = gradient(robust)
    ours, mended, own, forwards = gradient(model)
    with torch.no_grad():
        torch.testing.assert_close(own, model(digits.x), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(own, logits, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(ours, values, rtol=1e-5, atol=1e-5)
    # Rounding turns units of ReLU near zero, 1e-6 of the way as well.
    assert F.cosine_similarity(mended.flatten(), plain.flatten(), dim=0) > 0.999
    assert forwards == 2 * len(digits)


def test_half_precision_needs_a_larger_step(robust, digits):
    model = Before(lambda x: ZeroAtBounds.apply(x.half()).float(), robust)
    assert edge_nudge(model, digits.x) == 2**-10


@pytest.mark.parametrize(
    "name", ["robust.pt", "overfit.pt", "standard.pt", "trades.safetensors", "smooth.safetensors"]
)
def test_sound_networks_are_run_as_they_are(name, digits):
    model = load(samples_dir() / name, device="cpu")
    assert edge_nudge(model, digits.x) == 0
    runner = Runner(model, CPU)
    runner.gradient(margin, digits.x, digits.y)
    assert runner.forwards == len(digits)


def test_no_gradient_anywhere_is_another_fault(robust, digits):
    for function in (torch.round, lambda x: x.detach(), lambda x: 0 * x):
        assert edge_nudge(Before(function, robust), digits.x) == 0


QUICK = ("pgd", "cw", "apgd-ce", "apgd-t", "fab-t")
LONG = [pytest.param(name, marks=pytest.mark.slow) for name in ("apgd-dlr", "fab", "fast")]


@pytest.mark.parametrize("name", [*QUICK, *LONG])
def test_every_attack_breaks_as_much_as_without_the_clamp(name, robust, digits):
    def left(model):
        if name in ("pgd", "cw"):
            loss = "ce" if name == "pgd" else "margin"
            found = attacks.pgd(model, digits.x, digits.y, BALL, loss=loss)
        else:
            found = ATTACKS[name](model, digits.x, digits.y, BALL)
        return int(found.robust.sum())

    assert abs(left(Before(ZeroAtBounds.apply, robust)) - left(robust)) <= 1


def test_the_library_is_given_the_same_gradients(robust, digits, monkeypatch):
    class GivenError(Exception):
        pass

    def gradient(network):
        def keep(counted, *_):
            raise GivenError(counted)

        # The package has a function of the module's name.
        module = sys.modules["robaudit.attacks.autoattack"]
        monkeypatch.setattr(module, "_prepared", keep)
        with pytest.raises(GivenError) as caught:
            attacks.autoattack(network, digits.x, digits.y, BALL, faster=False)
        (counted,) = caught.value.args
        leaf = digits.x.clone().requires_grad_()
        logits = counted(leaf)
        (found,) = torch.autograd.grad(margin(logits, digits.y).sum(), leaf)
        return logits.detach(), found

    logits, plain = gradient(robust)
    own, mended = gradient(Before(ZeroAtBounds.apply, robust))
    torch.testing.assert_close(own, logits)
    assert F.cosine_similarity(mended.flatten(), plain.flatten(), dim=0) > 0.999


def test_the_robust_loss_and_its_flatness_are_the_plain_networks(robust, digits):
    model = Before(ZeroAtBounds.apply, robust)

    def measured(network):
        return (
            attacks.pgd(network, digits.x, digits.y, BALL).loss.mean().item(),
            flatness.average(network, digits.x, digits.y, BALL, steps=3, perturbations=1).value,
            flatness.worst(
                network, digits.x, digits.y, BALL, xi=0.003, steps=3, passes=3, restarts=1
            ).value,
        )

    for ours, plain in zip(measured(model), measured(robust), strict=True):
        assert ours == pytest.approx(plain, rel=0.02)


def test_the_callers_random_state_is_left_alone(robust, digits):
    def noisy(x):
        return robust(x + 0.01 * torch.randn_like(x))

    torch.manual_seed(5)
    edge_nudge(noisy, digits.x)
    after = torch.rand(3)
    torch.manual_seed(5)
    assert torch.equal(after, torch.rand(3))


class CutOff(nn.Module):
    """Logits with a gradient in what is made of the images, and none in the images."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 3)

    def forward(self, x):
        return self.linear(x.detach().clone().requires_grad_().flatten(1))


def test_a_network_that_is_cut_off_from_its_images_has_no_gradient():
    logits, gradient = mixture_gradient(CutOff(), torch.rand(2, 1, 2, 2))
    assert logits.shape == (2, 3)
    assert gradient is None
