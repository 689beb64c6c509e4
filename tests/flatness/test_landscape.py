import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from robaudit.attacks import pgd
from robaudit.errors import NotMeasuredError, UsageError
from robaudit.flatness import (
    Adversary,
    adversarial_direction,
    around,
    between,
    input_surface,
    landscape,
    landscape_plane,
    mean_and_error,
    normalized,
    places_between,
    random_direction,
    symmetric_places,
)
from robaudit.flatness.weights import movable_weights
from robaudit.types import ThreatModel

THREAT = ThreatModel("linf", 0.1)
QUICK = Adversary(steps=4, seed=5)


def network(seed=0):
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 8), nn.ReLU(),
        nn.Linear(8, 3),
    )  # fmt: skip
    model(torch.rand(32, 1, 6, 6))  # running statistics that are not 0 and 1
    return model.eval()


@pytest.fixture
def model():
    return network()


@pytest.fixture
def batch():
    torch.manual_seed(1)
    return torch.rand(40, 1, 6, 6), torch.randint(3, (40,))


class Logistic(nn.Module):
    """``z = (w^T x, 0)``: the losses along every line have closed forms."""

    def __init__(self, w):
        super().__init__()
        self.w = nn.Parameter(torch.tensor(w))

    def forward(self, x):
        score = x.flatten(1) @ self.w
        return torch.stack([score, torch.zeros_like(score)], 1)


def test_at_the_origin_it_is_the_network_itself(model, batch):
    x, y = batch
    line = around(model, random_direction(model, seed=3))
    found = landscape(model, [line], symmetric_places(5), x, y, THREAT, adversary=QUICK)
    attacked = pgd(model, x, y, THREAT, steps=4, seed=5)
    assert torch.equal(found.robust[0, 2], attacked.loss.double())
    clean = F.cross_entropy(model(x), y, reduction="none").detach().double()
    assert found.clean[0, 2].tolist() == pytest.approx(clean.tolist(), rel=1e-5, abs=1e-7)
    assert (found.robust >= found.clean).all()


def test_a_line_of_a_logistic_model_matches_its_closed_form():
    """Label 0, the ball inside the box: the worst score is ``w^T x - eps ||w||_1``."""
    model = Logistic([1.0, -2.0, 1.5, 0.5])
    torch.manual_seed(2)
    x, y = 0.3 + 0.4 * torch.rand(20, 1, 2, 2), torch.zeros(20).long()
    direction = random_direction(model, seed=1)
    s = symmetric_places(7, 0.8)
    found = landscape(model, [around(model, direction)], s, x, y, THREAT)
    for at, value in enumerate(s.tolist()):
        w = model.w.detach() + value * direction["w"]
        score = x.flatten(1) @ w
        want = F.softplus(-score)
        assert found.clean[0, at].tolist() == pytest.approx(want.tolist(), rel=1e-5)
        worst = F.softplus(-(score - THREAT.eps * w.abs().sum()))
        assert found.robust[0, at].tolist() == pytest.approx(worst.tolist(), rel=1e-5)


def test_the_line_between_two_networks_ends_at_them(batch):
    x, y = batch
    first, second = network(0), network(7)
    s = places_between(9)
    found = landscape(first, [between(first, second)], s, x, y, THREAT, adversary=QUICK)
    for place, model in ((0.0, first), (1.0, second)):
        at = s.tolist().index(place)
        own = pgd(model, x, y, THREAT, steps=4, seed=5)
        assert torch.equal(found.robust[0, at], own.loss.double())


def test_the_corners_of_a_plane_are_its_networks(batch):
    x, y = batch
    models = [network(0), network(7), network(8)]
    s = places_between(5)
    found = landscape_plane(models[0], between(*models), s, s, x, y, THREAT, adversary=QUICK)
    assert found.clean.shape == (5, 5, 40)
    zero, one = s.tolist().index(0.0), s.tolist().index(1.0)
    for (row, column), model in zip([(zero, zero), (zero, one), (one, zero)], models, strict=True):
        own = pgd(model, x, y, THREAT, steps=4, seed=5)
        assert found.robust is not None
        assert torch.equal(found.robust[row, column], own.loss.double())


def test_beyond_the_ends_running_variances_stay_positive(batch):
    first, second = network(0), network(7)
    with torch.no_grad():
        first[1].running_var.fill_(1)
        second[1].running_var.fill_(0.1)
    at = between(first, second)([1.5])
    assert torch.equal(at["1.running_var"], torch.full((4,), 0.1))
    found = landscape(first, [between(first, second)], places_between(5), *batch, THREAT)
    assert torch.isfinite(found.robust).all()


@pytest.mark.parametrize("kind", ["random", "adversarial"])
def test_directions_have_the_norms_of_what_they_move(kind, model, batch):
    def direction(by):
        if kind == "random":
            return random_direction(model, by=by, seed=2)
        return adversarial_direction(model, *batch, THREAT, by=by, seed=2, steps=3)

    weights = movable_weights(model)
    by_layer, by_filter = direction("layer"), direction("filter")
    assert by_layer.keys() == by_filter.keys() == weights.keys()
    assert not any(name.startswith("1.") for name in weights)  # batch norm stays
    for name, weight in weights.items():
        assert float(by_layer[name].norm()) == pytest.approx(float(weight.norm()), rel=1e-5)
        rows = by_filter[name].flatten(1) if weight.dim() > 1 else by_filter[name][None]
        own = weight.flatten(1) if weight.dim() > 1 else weight[None]
        assert rows.norm(dim=1).tolist() == pytest.approx(own.norm(dim=1).tolist(), rel=1e-5)


def test_an_empty_filter_stays_empty():
    weights = {"w": torch.tensor([[3.0, 4.0], [0.0, 0.0]])}
    scaled = normalized({"w": torch.tensor([[0.0, 2.0], [1.0, 1.0]])}, weights, "filter")["w"]
    assert scaled.tolist() == [[0.0, 5.0], [0.0, 0.0]]
    still = normalized({"w": torch.zeros(2, 2)}, weights)["w"]
    assert torch.equal(still, torch.zeros(2, 2))


def test_the_adversarial_direction_rises_faster_than_random_ones(model, batch):
    lines = [
        around(model, adversarial_direction(model, *batch, THREAT, steps=4)),
        *(around(model, random_direction(model, which=j)) for j in range(4)),
    ]
    s = symmetric_places(3, 0.01)
    robust = landscape(model, lines, s, *batch, THREAT, adversary=QUICK).robust.mean(2)
    assert robust[0, 2] > robust[0, 1]
    assert robust[0, 2] - robust[0, 1] > (robust[1:, [0, 2]] - robust[1:, 1:2]).max()


def rescaled(model, factor):
    """The same function with one layer scaled by ``factor`` and the next by its inverse."""
    copy = network()
    copy.load_state_dict(model.state_dict())
    with torch.no_grad():
        copy[4].weight.mul_(factor)
        copy[4].bias.mul_(factor)
        copy[6].weight.div_(factor)
    return copy


@pytest.mark.parametrize("factor", [0.5, 2.0])
@pytest.mark.parametrize("by", ["layer", "filter"])
def test_scale_invariance(by, factor, model, batch):
    """Powers of two only move exponents; what is left is rounding in sums of squares."""
    s = symmetric_places(5)
    found = [
        landscape(
            each, [around(each, random_direction(each, by=by, seed=4))], s, *batch, THREAT,
            adversary=QUICK,
        )
        for each in (model, rescaled(model, factor))
    ]  # fmt: skip
    for kind in ("clean", "robust"):
        before, after = (getattr(each, kind).mean(2) for each in found)
        assert after.flatten().tolist() == pytest.approx(before.flatten().tolist(), rel=1e-4)


def test_fixed_examples_are_those_of_the_origin(model, batch):
    x, y = batch
    line = around(model, random_direction(model))
    s = symmetric_places(5)
    kept = Adversary(steps=4, seed=5, fixed=True)
    fixed = landscape(model, [line], s, x, y, THREAT, adversary=kept).robust[0]
    anew = landscape(model, [line], s, x, y, THREAT, adversary=QUICK).robust[0]
    assert fixed[2].tolist() == pytest.approx(anew[2].tolist(), rel=1e-6)
    assert fixed[0].mean() < anew[0].mean()
    assert fixed[4].mean() < anew[4].mean()


def test_neither_batch_size_nor_neighbours_matter(model, batch):
    x, y = batch
    line, s = around(model, random_direction(model)), symmetric_places(3)
    whole = landscape(model, [line], s, x, y, THREAT, adversary=QUICK, batch_size=64)
    other = landscape(model, [line], s, x, y, THREAT, adversary=QUICK, batch_size=7)
    assert torch.equal(whole.robust, other.robust)
    index = torch.arange(40)[25:]
    part = landscape(
        model, [line], s, x[25:], y[25:], THREAT, adversary=QUICK, index=index
    )  # fmt: skip
    assert torch.equal(whole.robust[:, :, 25:], part.robust)
    assert torch.equal(whole.clean[:, :, 25:], part.clean)


def test_the_model_is_left_bit_for_bit_after_an_interrupt(model, batch):
    before = {name: value.clone() for name, value in model.state_dict().items()}

    def stop(done, total):
        if done > total // 2:
            raise KeyboardInterrupt

    model.train()
    s = symmetric_places(3)
    for family in (around(model, random_direction(model)), between(model, network(9))):
        with pytest.raises(KeyboardInterrupt):
            landscape(model, [family], s, *batch, THREAT, adversary=QUICK, progress=stop)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert model.training
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_progress_ends_at_the_whole(model, batch):
    told = []
    landscape(
        model, [around(model, random_direction(model))], symmetric_places(3), *batch, THREAT,
        adversary=QUICK, progress=lambda done, total: told.append(done / total),
    )  # fmt: skip
    assert told == sorted(told)
    assert told[-1] == 1


def test_networks_of_different_architectures_have_no_line_between_them(model):
    wider, smooth = network(), network()
    wider[6] = nn.Linear(8, 4)
    smooth[2] = nn.SiLU()
    for other in (wider, smooth):
        with pytest.raises(UsageError, match="different architectures"):
            between(model, other)


@pytest.mark.parametrize("points", [-1, 0, 1, 2, 4])
def test_too_few_or_an_even_number_of_points(points):
    for places in (symmetric_places, places_between):
        with pytest.raises(UsageError, match="an odd number of points, 3 at least"):
            places(points)


@pytest.mark.parametrize("reach", [0.0, -1.0, math.nan, math.inf])
def test_a_range_that_is_none(reach):
    with pytest.raises(UsageError, match="must be a positive number"):
        symmetric_places(3, reach)


@pytest.mark.parametrize("points", range(3, 43, 2))
def test_places(points):
    inside, around_zero = places_between(points), symmetric_places(points, 0.3)
    assert {0.0, 1.0} <= set(inside.tolist())
    assert float(inside[0] + inside[-1]) == pytest.approx(1)
    assert len(inside) == len(around_zero) == points
    assert float(around_zero[points // 2]) == 0
    assert float(around_zero[-1]) == -float(around_zero[0]) == 0.3


def test_a_loss_that_is_not_finite(batch):
    model = Logistic([1.0] * 36)
    line = around(model, {"w": torch.full((36,), 1e38)})
    with pytest.raises(NotMeasuredError, match="not finite"):
        landscape(model, [line], symmetric_places(3, 100), batch[0], batch[1] % 2, THREAT)


def test_means_and_errors():
    mean, error = mean_and_error(torch.tensor([[1.0, 3.0], [2.0, 2.0]]))
    assert mean.tolist() == [2, 2]
    assert error.tolist() == [1, 0]
    assert mean_and_error(torch.ones(2, 1))[1].isnan().all()


def test_the_input_surface_of_a_logistic_model():
    """Along the gradient's sign the score of label 0 falls by ``s ||w||_1``."""
    model = Logistic([1.0, -2.0, 1.5, 0.5])
    torch.manual_seed(2)
    x, y = 0.3 + 0.4 * torch.rand(20, 1, 2, 2), torch.zeros(20).long()
    s = symmetric_places(5, 0.1)
    found = input_surface(model, x, y, s, s, seed=3)
    assert found.robust is None
    score = x.flatten(1) @ model.w.detach()
    for at, value in enumerate(s.tolist()):
        want = F.softplus(-(score - value * model.w.detach().abs().sum()))
        assert found.clean[2, at].tolist() == pytest.approx(want.tolist(), rel=1e-5)
    # a sign pattern moves the score by a sum of +-w_i, the same for every t up to its factor
    shift = -torch.log(torch.expm1(found.clean[:, 2])) - score
    patterns = {
        round(abs(a + b + c + d), 4) for a in (1, -1) for b in (2, -2) for c in (1.5, -1.5)
        for d in (0.5, -0.5)
    }  # fmt: skip
    for at, value in enumerate(s.tolist()):
        if value:
            assert {round(abs(float(m) / value), 3) for m in shift[at]} <= patterns
    part = input_surface(model, x[5:], y[5:], s, s, seed=3, index=torch.arange(20)[5:])
    assert torch.equal(part.clean, found.clean[:, :, 5:])
