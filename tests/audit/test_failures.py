"""Whatever a network or a library raises ends its own measurement, in words that say who."""

import importlib
import inspect
import operator
import re
import signal

import pytest
import torch
from torch import nn

from robaudit.attacks import autoattack
from robaudit.audit import Plan, audit
from robaudit.audit.failures import not_measured
from robaudit.audit.probes import AutoAttack, Average, Cw, Fast, Hessian, Pgd, TopLayer, Wci, Worst
from robaudit.errors import Interrupted, NotMeasuredError, UsageError
from robaudit.types import ThreatModel

THREAT = ThreatModel("linf", 0.1)
PGD = Pgd(steps=2)
ALL = Plan(
    probes=(
        PGD,
        Cw(steps=2),
        Fast(),
        AutoAttack(engine="native"),
        Wci(PGD),
        TopLayer(PGD),
        Hessian(PGD),
        Average(PGD),
        Worst(PGD),
    )
)


class Raising(nn.Sequential):
    """Right on the digits as they are; raises on all that lies between their grey levels."""

    def __init__(self, error):
        torch.manual_seed(0)
        super().__init__(nn.Flatten(), nn.Linear(64, 10))
        self.error = error

    def forward(self, x):
        if bool(((16 * x - (16 * x).round()).abs() > 1e-3).any()):
            raise self.error
        return super().forward(x)


LINE = inspect.getsourcelines(Raising)[1] + 10

ERRORS = [
    ValueError("no image of mine"), IndexError(), ZeroDivisionError("division by zero"),
    AssertionError(), RecursionError("too deep"), KeyError("weights"), NotImplementedError(),
    OSError(5, "Input/output error"), UnicodeDecodeError("utf-8", b"x", 0, 1, "bad"),
    StopIteration(), RuntimeError("shape"), SystemExit(0), SystemExit("bye"), GeneratorExit(),
    Warning("odd"), type("OwnError", (Exception,), {})("of its own kind\nand a second line"),
]  # fmt: skip


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_every_measurement_that_needs_it_fails_and_the_others_stand(error, few):
    report = audit(Raising(error), few, THREAT, ALL).report
    clean = [m for m in report.measurements if m.name in ("accuracy.clean", "loss.clean")]
    others = [m for m in report.measurements if m not in clean]
    assert [m.status for m in clean] == ["ok", "ok"]
    assert {m.status for m in others} == {"failed"}
    assert len({m.name for m in others}) >= 12
    said = str(error).splitlines()
    for m in others:
        assert m.reason.startswith(f"the network raised {type(error).__name__}")
        assert m.reason.endswith(f" (test_failures.py:{LINE})")
        assert not said or said[0] in m.reason
        assert "\n" not in m.reason


def test_a_network_that_always_raises_is_refused_with_its_line(few):
    class Never(nn.Sequential):
        def forward(self, x):
            return {}[x.shape]

    from robaudit.errors import CheckpointError

    network = Never(nn.Linear(1, 1))
    with pytest.raises(CheckpointError, match=r"does not take images.*KeyError.*test_failures\.py"):
        audit(network, few, THREAT, ALL)


def test_checks_before_the_attacks_that_fail_are_a_doubt(few):
    class Few(nn.Sequential):
        """Takes whole tiles and pairs alone."""

        def forward(self, x):
            if len(x) not in (2, 64):
                raise ValueError("how many?")
            return super().forward(x)

    network = Few(nn.Flatten(), nn.Linear(64, 10))
    found = audit(network, few, THREAT, Plan(probes=(PGD,))).report
    assert {m.status for m in found.measurements} == {"ok"}
    doubts = found.get("accuracy.pgd").doubts
    assert any("before the attacks" in line and "how many?" in line for line in doubts)


def test_the_librarys_own_error_is_told_from_the_networks(monkeypatch):
    """Square of pyautoattack 0.1 draws no window for images of height three in l2."""

    def square_alone(*args):
        attack, notes = prepared(*args)
        attack.attacks_to_run = ["square"]
        return attack, notes

    by_library = importlib.import_module("robaudit.attacks.autoattack")
    prepared = by_library._prepared
    monkeypatch.setattr(by_library, "_prepared", square_alone)
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(27, 10))
    x = torch.rand(6, 3, 3, 3)
    with torch.no_grad():
        y = network(x).argmax(1)
    with pytest.raises(NotMeasuredError, match=r"square.*library pyautoattack raised .*\.py:\d+\)"):
        autoattack(network, x, y, ThreatModel("l2", 1e-4))


def test_an_error_of_robaudits_own_is_not_laid_at_the_networks_door(few, monkeypatch):
    monkeypatch.setattr("robaudit.audit.probes.pgd.passes", operator.attrgetter("missing"))
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    report = audit(network, few, THREAT, Plan(probes=(PGD, Wci(PGD)))).report
    reason = report.get("accuracy.pgd").reason
    where = r"\(at robaudit/audit/probes/pgd\.py:\d+\)$"
    assert re.match(rf"AttributeError: .*, while .* {where}", reason)
    assert report.get("wci").status == "ok"


def test_the_users_interrupt_and_refusals_pass():
    for error in (Interrupted(), UsageError("no"), KeyboardInterrupt()):
        with pytest.raises(type(error)), not_measured():
            raise error


def test_an_interrupt_that_nobody_sent_is_the_networks(few):
    before = signal.signal(signal.SIGINT, lambda *_: None)  # as the command line has its own
    try:
        report = audit(Raising(KeyboardInterrupt()), few, THREAT, Plan(probes=(PGD,))).report
    finally:
        signal.signal(signal.SIGINT, before)
    assert report.get("accuracy.pgd").status == "failed"
    assert "KeyboardInterrupt" in report.get("accuracy.pgd").reason


@pytest.mark.parametrize("error", [MemoryError(), torch.cuda.OutOfMemoryError("CUDA")])
def test_want_of_memory_says_what_helps(error, few):
    report = audit(Raising(error), few, THREAT, Plan(probes=(PGD,))).report
    assert "--n" in report.get("accuracy.pgd").reason
