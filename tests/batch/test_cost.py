"""What a dry run counts is what a run does."""

from dataclasses import replace

import pytest
import torch

from robaudit.batch.cost import Cost, Speed, cost
from robaudit.batch.estimate import Estimate, total
from robaudit.batch.work import load_model, load_parts, work

SPEED = Speed(
    load=1, write=0.5, audit=0.1, forward=1e-3, gradient=3e-3, trace=1e-2, product=0.1,
    right=0.9, robust=0.5,
)  # fmt: skip


@pytest.mark.parametrize("gap", [False, True])
def test_passes_are_those_of_the_run(job, tmp_path, monkeypatch, gap):
    """Counted in the network itself, whichever probe runs it and however."""
    from robaudit.batch import work as working

    one = job("a.pt", n=40, gap=gap)
    images = []

    def counted(*said):
        model = load_model(*said)
        model.register_forward_pre_hook(lambda _, given: images.append(len(given[0])))
        return model

    monkeypatch.setattr(working, "load_model", counted)
    examples, train = load_parts(one)
    list(work(one, tmp_path / "job", "cpu"))
    expected = cost(one, len(examples), 0 if train is None else len(train), SPEED)
    assert expected.forwards == pytest.approx(sum(images), rel=0.15)


def test_cost_grows_with_tiles_steps_and_splits(job):
    quick, standard = job("a.pt"), job("a.pt", preset="standard")
    assert cost(quick, 40, 0, SPEED) == cost(quick, 64, 0, SPEED)
    one, two, three = (cost(quick, n, 0, SPEED).forwards for n in (64, 65, 129))
    assert two - one == three - two > 0.5 * one  # a tile more is a tile more
    assert cost(quick, 64, 64, SPEED).forwards > cost(quick, 64, 0, SPEED).forwards
    assert cost(standard, 64, 0, SPEED).seconds > 5 * cost(quick, 64, 0, SPEED).seconds


def test_autoattack_costs_what_the_reference_does(job, monkeypatch):
    """Counted in the reference code: 7857 forward and 1910 backward passes for a robust example.

    By hand: APGD on cross-entropy takes 100 gradients of an example that is right; one that stands
    takes 100 for each of nine targets, by APGD and by FAB, and 5000 queries of Square.
    """
    from robaudit.audit.plan import AutoAttack, Plan
    from robaudit.batch import cost as costs

    def of(plan, right, robust):
        monkeypatch.setattr(costs, "preset", lambda _: plan)
        return cost(job("a.pt"), 64, 0, replace(SPEED, right=right, robust=robust))

    def added(right, robust):
        whole, bare = of(Plan(autoattack=AutoAttack()), right, robust), of(Plan(), right, robust)
        return whole.forwards - bare.forwards, whole.backwards - bare.backwards

    _, none = added(0.0, 0.0)
    assert none == 0
    forwards, backwards = added(1.0, 1.0)
    assert backwards == 64 * (100 + 2 * 9 * 100)
    assert backwards == pytest.approx(64 * 1910, rel=0.01)
    assert forwards == pytest.approx(64 * (1900 + 5000), rel=0.01)
    assert forwards == pytest.approx(64 * 7857, rel=0.13)  # what else it looks at is left out
    assert added(1.0, 0.0)[1] == 64 * 100
    assert added(1.0, 0.5)[1] == 64 * 100 + 32 * 1800


def test_the_whole_is_shared_by_workers_and_never_shorter_than_its_longest_job():
    found = [Estimate(None, Cost(10, 5, seconds)) for seconds in (10.0, 10.0, 40.0)]
    assert total([*found, Estimate(None, None, "done")], 1, 2.0) == Cost(30, 15, 62.0)
    assert total(found, 2, 2.0).seconds == 42.0
    assert total([], 2, 2.0) == Cost(0, 0, 0.0)


def test_calibration_measures_everything(job):
    from robaudit.batch.cost import calibrate

    one = job("a.pt", preset="standard", n=64)
    examples, _ = load_parts(one)
    speed = calibrate(one, examples, "cpu")
    numbers = [value for name, value in vars(speed).items() if name not in ("right", "robust")]
    assert all(value > 0 for value in numbers)
    with torch.no_grad():
        right = load_model(one, examples, "cpu")(examples.x).argmax(1) == examples.y
    assert speed.right == pytest.approx(right.double().mean().item())
    assert 0 <= speed.robust <= speed.right
