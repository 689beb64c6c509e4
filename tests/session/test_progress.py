"""Time left for a whole run, by a clock that the tests set."""

import pytest
import torch
from torch import nn

from robaudit.audit import Plan, audit
from robaudit.audit.probes import Pgd, Wci
from robaudit.audit.work import Work
from robaudit.data import load_examples
from robaudit.display import Display, Whole
from robaudit.request import Request, made
from robaudit.session import audit_all
from robaudit.types import ThreatModel


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def test_nothing_is_said_before_it_can_be_estimated():
    clock = Clock()
    whole = Whole(1, clock)
    whole.begin()
    clock.now = 30
    assert whole.left() is None
    whole.progress(4, 100)
    assert whole.line() == ""
    whole.progress(5, 100)
    assert whole.left() == pytest.approx(570)


def test_models_count_alike_and_time_passes_between_steps():
    clock = Clock()
    whole = Whole(8, clock)
    whole.begin()
    assert whole.line() == "model 1 of 8"
    clock.now = 10
    whole.begin()
    whole.progress(500, 1000)
    assert whole.left() == pytest.approx(10 / 1.5 * 6.5)
    clock.now = 20
    assert whole.left() == pytest.approx(10 / 1.5 * 6.5 - 10)
    whole.begin()
    assert whole.line() == "model 3 of 8, about 1 min left for the whole run"
    clock.now = 81  # later than was thought: nothing is claimed
    assert whole.line() == "model 3 of 8"


def test_a_probe_counts_as_planned_however_little_it_took():
    told = []
    work = Work(100, lambda done, total: told.append((done, total)))
    with work.probe(40):
        shown = []
        first = work.through(30, lambda done, total: shown.append(done))
        first(1, 2)
        first(2, 2)
        second = work.through(30, None)
        second(1, 1)  # more than was planned is not counted
    with work.probe(60):
        pass
    assert told == [(15, 100), (30, 100), (40, 100), (40, 100), (100, 100)]
    assert shown == [1, 2]


def test_an_audit_tells_its_plan_in_order_and_to_the_end():
    few = load_examples("digits", n=8)
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    pgd = Pgd(steps=3)
    plan = Plan(n=8, probes=(pgd, Wci(pgd)))
    told = []
    audit(net, few, ThreatModel("linf", 0.1), plan, progress=lambda *at: told.append(at))
    done = [at for at, _ in told]
    assert done == sorted(done)
    assert {total for _, total in told} == {plan.passes(8)}
    assert done[-1] == plan.passes(8)
    assert [probe.name for probe, _ in plan.costs(8)] == ["clean", "pgd", "wci"]
    # PGD's examples are counted with what makes them, and once
    assert plan.costs(8)[1][1] == 8 * pgd.passes_each


class Lines(Display):
    """What a terminal would say of the whole run, when each display opens."""

    def __init__(self):
        self.lines = []

    def bars(self, name, whole=None):
        if whole is not None:
            self.lines.append(whole.line().split(",")[0])
        return super().bars(name, whole)


def test_several_checkpoints_are_counted(robust_and_standard):
    display = Lines()
    asked = made(Request, {"data": "digits", "n": 4})
    audit_all(robust_and_standard, Plan(n=4), asked, display=display)
    assert list(dict.fromkeys(display.lines)) == ["model 1 of 2", "model 2 of 2"]


@pytest.fixture
def robust_and_standard():
    from robaudit.checkpoints import samples_dir

    return [str(samples_dir() / name) for name in ("robust.pt", "standard.pt")]
