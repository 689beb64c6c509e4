"""Square: draws as the reference library's, and the same results with and without its savings."""

import math

import pytest
import torch
from pyautoattack.square import SquareAttack
from support.attacks import THREATS, examples, network
from support.recorders import Again
from torch import nn

from robaudit.attacks import square, square_skips, square_steps
from robaudit.attacks.patches import patches
from robaudit.attacks.square_draws import Draws
from robaudit.attacks.square_l2 import Bumps
from robaudit.attacks.square_linf import Corners
from robaudit.attacks.square_steps import Searched, Step
from robaudit.engine import Runner, captured
from robaudit.errors import NotMeasuredError
from robaudit.types import ThreatModel

NORMS = {"linf": "Linf", "l2": "L2", "l1": "L1"}


def named(value):
    return getattr(value, "norm", value)


def convolution(channels, height, width, classes, seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(channels, 6, 3, padding=1), nn.ReLU(), nn.Flatten(),
        nn.Linear(6 * height * width, classes),
    ).eval()  # fmt: skip


def pictures(model, n, *shape):
    torch.manual_seed(1)
    x = torch.rand(n, *shape)
    with torch.no_grad():
        return x, model(x).argmax(1)


def in_steps(monkeypatch):
    """From here on nothing is skipped: every query of an image is one step of a block."""
    monkeypatch.setattr(square_skips, "_REMEMBERED", 0)


def same(first, second):
    assert torch.equal(first.x, second.x)
    assert torch.equal(first.robust, second.robust)


@pytest.mark.parametrize("shape", [(1, 7, 7), (3, 8, 6), (2, 5, 9)])
@pytest.mark.parametrize("classes", [2, 7])
def test_patches_that_are_skipped_would_not_have_helped(shape, classes, monkeypatch):
    model = convolution(*shape, classes)
    x, y = pictures(model, 70, *shape)
    ball = ThreatModel("linf", 0.02)
    skipping = square(model, x, y, ball, queries=250, seed=2)
    in_steps(monkeypatch)
    stepping = square(model, x, y, ball, queries=250, seed=2)
    same(skipping, stepping)
    assert 0 < int(skipping.robust.sum()) < 70
    assert skipping.forwards < stepping.forwards


def test_from_other_points_too_with_few_patches_that_change_something(monkeypatch):
    model = convolution(3, 8, 8, 6)
    x, y = pictures(model, 70, 3, 8, 8)
    ball = ThreatModel("linf", 0.02)
    start = (x + ball.eps * torch.rand_like(x).sub(0.5).sign()).clamp(0, 1)
    for most in (7, 60):
        with monkeypatch.context() as forced:
            skipping = patches(model, x, y, ball, start=start, most=most)
            in_steps(forced)
            same(skipping, patches(model, x, y, ball, start=start, most=most))
        assert skipping.forwards <= (2 + most) * 70
    assert not torch.equal(skipping.x, start)


@pytest.mark.parametrize("ball", THREATS, ids=named)
def test_when_broken_images_leave_changes_nothing(ball, monkeypatch):
    model = convolution(1, 7, 7, 7)
    x, y = pictures(model, 70, 1, 7, 7)
    ball = ThreatModel(ball.norm, ball.eps / 4)
    in_steps(monkeypatch)
    found = [square(model, x, y, ball, queries=80)]
    for share, most in ((0.0, 1), (50.0, 37)):
        monkeypatch.setattr(square_steps, "_SHARE", share)
        monkeypatch.setattr(square_steps, "_MOST", most)
        found.append(square(model, x, y, ball, queries=80))
        same(found[0], found[-1])
    assert found[1].forwards <= found[0].forwards < found[-1].forwards


@pytest.mark.parametrize("ball", THREATS, ids=named)
def test_steps_give_an_image_the_same_result_in_any_company(ball, monkeypatch):
    model = network(pixels=7)
    x, y = examples(model, 90, pixels=7)
    in_steps(monkeypatch)
    whole = square(model, x, y, ball, queries=60, seed=1)
    order = torch.randperm(90, generator=torch.Generator().manual_seed(0))[:23]
    part = square(model, x[order], y[order], ball, queries=60, seed=1, index=order)
    assert torch.equal(part.x, whole.x[order])
    assert torch.equal(part.robust, whole.robust[order])


@pytest.mark.parametrize("ball", THREATS, ids=named)
@pytest.mark.parametrize("most", [None, 5])
def test_a_step_reads_nothing_back_and_keeps_its_memory(ball, most):
    """On a device whose tensors have shapes, but no values that a host could read."""
    meta = torch.device("meta")
    x, weight = torch.zeros(64, 3, 8, 8, device=meta), torch.zeros(192, 5, device=meta)
    y, best = torch.zeros(64, dtype=torch.long, device=meta), torch.zeros(64, device=meta)
    if ball.norm == "linf":
        proposals = Corners(x, ball.eps, range(100), 0)
    else:
        proposals = Bumps(x, ball, range(100), 0)
    like = Searched(x, y, y, x, best, best.bool(), y)
    runner = Runner(lambda images: images.flatten(1) @ weight, meta)
    step = Step(runner.network, proposals, like, most)
    before = [*step.own, *step.draws, step.at, step.finite]
    step.query()
    after = [*step.own, *step.draws, step.at, step.finite]
    assert all(now is then for now, then in zip(after, before, strict=True))
    with pytest.raises((RuntimeError, NotImplementedError)):
        bool(step.finite)


@pytest.mark.parametrize("ball", THREATS, ids=named)
def test_recorded_steps_do_what_the_search_does(ball, monkeypatch):
    model = convolution(2, 7, 6, 5)
    x, y = pictures(model, 100, 2, 7, 6)
    ball = ThreatModel(ball.norm, ball.eps / 4)
    plain = square(model, x, y, ball, queries=130)
    recorder = Again()
    monkeypatch.setattr(captured, "recorder_for", lambda device: recorder)
    in_steps(monkeypatch)
    same(plain, square(model, x, y, ball, queries=130))
    assert 0 < int(plain.robust.sum()) < 100
    assert recorder.replayed > 100


def test_a_step_that_replays_something_else_is_not_recorded(monkeypatch):
    class Forgetful(Again):
        def record(self, work):
            out, _ = super().record(work)
            return out.zero_(), lambda: None

    model = convolution(2, 7, 6, 5)
    x, y = pictures(model, 20, 2, 7, 6)
    ball = ThreatModel("l2", 0.05)
    plain = square(model, x, y, ball, queries=60)
    monkeypatch.setattr(captured, "recorder_for", lambda device: Forgetful())
    runner = Runner(model, torch.device("cpu"))
    same(plain, square(runner, x, y, ball, queries=60))
    assert any("not recorded" in note for note in runner.network.notes)


def test_smaller_blocks_where_memory_runs_out(monkeypatch):
    model = convolution(2, 7, 6, 5)
    x, y = pictures(model, 100, 2, 7, 6)
    ball = ThreatModel("l2", 0.05)
    plain = square(model, x, y, ball, queries=60)
    load = Step._load

    def full(step, *given):
        if len(step.own.y) > 64:
            raise torch.cuda.OutOfMemoryError
        load(step, *given)

    monkeypatch.setattr(Step, "_load", full)
    runner = Runner(model, torch.device("cpu"))
    runner.batch = 128
    found = square(runner, x, y, ball, queries=60)
    assert runner.backoffs == [128]
    assert torch.equal(found.robust, plain.robust)


def test_a_bad_logit_is_met_in_steps_too(monkeypatch):
    class Late(nn.Module):
        """Finite for a few calls."""

        def __init__(self, model):
            super().__init__()
            self.model, self.calls = model, 0

        def forward(self, x):
            self.calls += 1
            return self.model(x) * (torch.nan if self.calls > 6 else 1.0)

    model = Late(network())
    x, y = examples(model.model, 8)
    in_steps(monkeypatch)
    with pytest.raises(NotMeasuredError, match="not finite"):
        square(model, x, y, ThreatModel("linf", 0.01), queries=200)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 28, 28), (1, 8, 8), (3, 224, 224)])
def test_patches_have_the_sizes_of_the_reference(norm, shape):
    reference = SquareAttack(nn.Identity(), norm=NORMS[norm], eps=0.1, resc_schedule=False)
    x = torch.rand(1, *shape)
    reference.init_hyperparam(x)
    least = 1 if norm == "linf" else 3
    expected = []
    for query in range(5000):
        side = max(round(math.sqrt(reference.p_selection(query) * shape[1] * shape[2])), least)
        side += norm != "linf" and side % 2 == 0
        expected.append(min(side, *shape[1:]))
    linf = norm == "linf"
    ours = (
        Corners(x, 0.1, range(5000), 0) if linf else Bumps(x, ThreatModel(norm, 1), range(5000), 0)
    )
    assert ours.drawn.sides.tolist() == expected


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_every_place_and_every_sign_is_as_likely_as_any_other(norm):
    """The reference's places end one before the last; ours are all of those inside the image."""
    x = torch.rand(1, 3, 6, 9)
    corners = norm == "linf"
    schedule = [3000] * 400  # sides of 1 and 3
    ours = Corners(x, 0.1, schedule, 0) if corners else Bumps(x, ThreatModel(norm, 1), schedule, 0)
    drawn = ours.drawn(torch.arange(200), torch.arange(400))
    side = 1 if corners else 3
    assert set(drawn.side.flatten().tolist()) == {side}
    down, across = 6 - side + 1, 9 - side + 1
    for window in range(1 if corners else 2):
        place = drawn.corners[..., 2 * window] * across + drawn.corners[..., 2 * window + 1]
        counts = place.flatten().bincount(minlength=down * across).double()
        expected = 200 * 400 / (down * across)
        chi = float(((counts - expected) ** 2 / expected).sum())
        freedom = len(counts) - 1
        assert len(counts) == down * across
        assert abs(chi - freedom) < 4 * math.sqrt(2 * freedom)
    coins = drawn.coins.flatten(0, 1).double() - 0.5
    assert coins.shape[1] == (3 if corners else 4)
    assert float((coins.T @ coins / len(coins) - torch.eye(coins.shape[1]) / 4).abs().max()) < 0.005
    assert float(coins.mean(0).abs().max()) < 0.01


def test_more_channels_than_bits_of_a_word():
    x = torch.rand(2, 70, 4, 4)
    drawn = Corners(x, 0.1, range(50), 0).drawn(torch.arange(40), torch.arange(50))
    assert drawn.coins.shape == (40, 50, 70)
    assert float((drawn.coins.double().mean((0, 1)) - 0.5).abs().max()) < 0.06


@pytest.mark.parametrize("norm", ["l2", "l1"])
@pytest.mark.parametrize("side", [3, 7, 8, 11])
def test_bumps_are_those_of_the_reference(norm, side):
    reference = SquareAttack(nn.Identity(), norm=NORMS[norm], eps=0.1, device="cpu")
    ours = Bumps(torch.rand(1, 1, 12, 12), ThreatModel(norm, 1), range(100), 0)
    shapes, places = ours._table([side], torch.device("cpu"))
    both = shapes[places[side]]
    torch.manual_seed(0)
    ways = set()
    for _ in range(12):
        theirs = reference.eta(side)
        away = (theirs - both).abs().amax((1, 2))
        assert float(away.min()) < 1e-6
        ways.add(int(away.argmin()))
    assert ways == {0, 1}


@pytest.mark.parametrize("norm", ["l2", "l1"])
def test_candidates_are_those_of_the_reference(norm):
    """Its formulas for one image at a time and in float64, before points return to the ball."""
    torch.manual_seed(0)
    x = 0.4 + 0.2 * torch.rand(20, 2, 9, 9).double()
    ball = ThreatModel(norm, 0.05)  # the box is far
    ours = Bumps(x, ball, [1500] * 40, 0)
    ours.shapes = ours.shapes.double()
    reference = SquareAttack(nn.Identity(), norm=NORMS[norm], eps=ball.eps, device="cpu")
    reference.init_hyperparam(x)
    best = x + 0.7 * ball.eps * reference.normalize(torch.randn_like(x))
    drawn = Draws(*(each[:, 5] for each in ours.drawn(torch.arange(20), torch.arange(40))))
    found = ours.candidates(x, best, drawn)
    order = 2 if norm == "l2" else 1
    sizes = lambda change: torch.linalg.vector_norm(change, order, (-2, -1), keepdim=True)  # noqa: E731
    for row in range(20):
        change = (best - x)[row].clone()
        top, left, top2, left2 = drawn.corners[row].tolist()
        side = int(drawn.side[row])
        here = slice(top, top + side), slice(left, left + side)
        there = slice(top2, top2 + side), slice(left2, left2 + side)
        both = torch.zeros(9, 9, dtype=torch.bool)
        both[here] = both[there] = True
        taken, spare = sizes(change * both), torch.linalg.vector_norm(change.flatten(), order)
        shape = ours.shapes[0, int(drawn.coins[row, 0]), :side, :side]
        signs = 2 * drawn.coins[row, 1:].double()[:, None, None] - 1
        new = shape * signs + change[:, *here] / sizes(change[:, *here])
        free = max(ball.eps**order - float(spare) ** order, 0) / 2
        size = (free + taken**2).sqrt() if norm == "l2" else (free + taken) * 2
        change[:, *there] = 0
        change[:, *here] = new / sizes(new) * size
        length = torch.linalg.vector_norm(change.flatten(), order)
        if norm == "l2":
            change = change * ball.eps / length
        elif float(length) > ball.eps:
            continue  # the projection has tests of its own
        torch.testing.assert_close(found[row], x[row] + change, rtol=0, atol=1e-6 * ball.eps + 1e-7)


def test_the_search_in_linf_begins_at_stripes():
    x = 0.4 + 0.2 * torch.rand(300, 3, 5, 7)
    up = (Corners(x, 0.1, range(5), 3).start(x, torch.arange(300)) - x) / 0.1
    torch.testing.assert_close(up.abs(), torch.ones_like(up))
    assert torch.equal(up.sign(), up.sign()[:, :, :1].expand_as(up))
    assert float(up[:, :, 0].mean(0).abs().max()) < 0.25
