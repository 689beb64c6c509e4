"""Balls and directions lie on the weights that a network computes with, and pruned ones stay zero.

The reference is the same network written out with plain weights.
"""

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune

from robaudit.flatness import (
    adversarial_direction,
    around,
    average,
    between,
    landscape,
    random_direction,
    worst,
)
from robaudit.types import ThreatModel

THREAT = ThreatModel("linf", 0.05)


def net(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 3, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(48, 5), nn.ReLU(),
        nn.Linear(5, 3),
    )  # fmt: skip


@pytest.fixture
def batch():
    torch.manual_seed(1)
    return torch.rand(8, 1, 4, 4), torch.arange(8) % 3


def weight_norm(model):
    parametrizations.weight_norm(model[0])
    parametrizations.weight_norm(model[3])


def old_norms(model):
    nn.utils.weight_norm(model[3])
    nn.utils.spectral_norm(model[5])


def orthogonal(model):
    parametrizations.orthogonal(model[3])


def by_hand(model):
    model.eval()(torch.rand(1, 1, 4, 4))
    plain = net()
    with torch.no_grad():
        for to, of in zip(plain, model, strict=True):
            if hasattr(to, "weight"):
                to.weight.copy_(of.weight)
                to.bias.copy_(of.bias)
    return plain


def line(model, direction, batch):
    s = torch.tensor([-1.0, 0.0, 1.0])
    return landscape(model, [around(model, direction)], s, *batch, THREAT).robust


@pytest.mark.parametrize("change", [weight_norm, old_norms, orthogonal])
def test_flatness_is_that_of_the_plain_network(change, batch):
    model = net()
    change(model)
    plain = by_hand(model)
    few = {"steps": 3}
    rounding = 2e-7  # of a loss near one in float32, which a rise is the difference of
    for threat in (THREAT, None):
        found, want = (average(m, *batch, threat, perturbations=3, **few) for m in (model, plain))
        assert found.value == pytest.approx(want.value, rel=1e-4, abs=rounding)
        assert found.notes
        assert not want.notes
        found, want = (worst(m, *batch, threat, restarts=2, xi=0.05, **few) for m in (model, plain))
        assert found.value == pytest.approx(want.value, rel=1e-4)
        assert sorted(found.nu) == sorted(want.nu)
    one, other = (line(m, random_direction(m, by="filter"), batch) for m in (model, plain))
    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    one, other = (line(m, adversarial_direction(m, *batch, THREAT), batch) for m in (model, plain))
    torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


def test_the_line_between_networks_runs_through_their_effective_weights(batch):
    ends = [net(0), net(5)]
    for model in ends:
        weight_norm(model)
    plain = [by_hand(model) for model in ends]
    s = torch.tensor([0.0, 0.5, 1.0])
    one, other = (
        landscape(first, [between(first, last)], s, *batch, THREAT).clean
        for first, last in (ends, plain)
    )
    torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def test_pruned_entries_never_move(batch):
    """With all but one entry of each tensor pruned, what is left moves by xi of its own size."""
    model = net()
    for layer in (model[0], model[3], model[5]):
        prune.random_unstructured(layer, "weight", layer.weight.numel() // 2)
        with torch.no_grad():
            layer.bias.zero_()
    kept = {f"{at}.weight": model[at].weight_mask.bool() for at in (0, 3, 5)}
    found = worst(model, *batch, THREAT, xi=0.3, restarts=2, steps=2)
    assert any("stay zero" in note for note in found.notes)
    plain = by_hand(model)
    for name, nu in found.nu.items():
        assert bool((nu[~kept[name]] == 0).all())
        assert bool((nu[kept[name]] != 0).any())
        norm = float(plain.get_parameter(name).norm())
        assert float(nu.norm()) <= 0.3 * norm * (1 + 1e-5)
    for direction in (
        random_direction(model),
        random_direction(model, by="filter"),
        adversarial_direction(model, *batch, THREAT, steps=2),
    ):
        for name, nu in direction.items():
            assert bool((nu[~kept[name]] == 0).all())
        assert float(direction["3.weight"].norm()) == pytest.approx(
            float(plain[3].weight.norm()), rel=1e-4
        )


@pytest.mark.parametrize("ball", ["sphere", "ball"])
def test_average_flatness_of_a_pruned_network_is_that_of_a_smaller_one(ball, batch):
    """Whole channels pruned: nothing of them is left, and the flatness has a closed form.

    One linear map to two logits, of which all columns but one are pruned: ``z = w x_0`` with
    one weight a class, so a perturbation on the sphere is an angle.
    """
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 2, bias=False))
    prune.custom_from_mask(model[1], "weight", torch.eye(16)[:1].repeat(2, 1))
    x, y = batch[0], torch.zeros(8).long()
    draws = 400
    found = average(model, x, y, None, xi=0.5, perturbations=draws, ball=ball)
    w = model[1].weight.detach()[:, 0].double()
    torch.manual_seed(7)
    angle = torch.rand(20000, dtype=torch.float64) * 2 * torch.pi
    length = 0.5 * w.norm() * (torch.rand_like(angle).sqrt() if ball == "ball" else 1.0)
    moved = w + length[..., None] * torch.stack([angle.cos(), angle.sin()], 1)
    pixel = x.flatten(1)[:, 0].double()
    loss = torch.nn.functional.softplus((moved[:, 1] - moved[:, 0])[:, None] * pixel)
    before = torch.nn.functional.softplus((w[1] - w[0]) * pixel)
    want = float((loss - before).mean())
    assert abs(found.value - want) < 5 * found.standard_error_perturbations
    spread = torch.tensor(found.perturbed).std()
    assert float(spread) == pytest.approx(float(loss.mean(1).std()), rel=0.15)


def test_a_mask_by_parametrisation_prunes_too(batch):
    class Mask(nn.Module):
        def __init__(self, mask):
            super().__init__()
            self.register_buffer("mask", mask)

        def forward(self, weight):
            return weight * self.mask

    model = net()
    mask = (torch.rand(5, 48) < 0.3).float()
    parametrize.register_parametrization(model[3], "weight", Mask(mask))
    nu = worst(model, *batch, None, xi=0.3, restarts=1).nu["3.weight"]
    assert bool((nu[mask == 0] == 0).all())
    assert bool((nu[mask == 1] != 0).any())


def test_what_no_pass_uses_has_no_ball(batch):
    class Idle(nn.Module):
        def __init__(self):
            super().__init__()
            self.own, self.never = net(), nn.Linear(3, 3)

        def forward(self, x):
            return self.own(x)

    found = worst(Idle(), *batch, None, xi=0.1, restarts=1)
    assert all(name.startswith("own.") for name in found.nu)
    assert any("never" in note for note in found.notes)
