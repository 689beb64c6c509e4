"""The rows of ``gpu.py`` with attacks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

from gpu_bench import Bench, Line, absent
from torch import Tensor

import robaudit as ra
from robaudit.attacks.verification import verify
from robaudit.audit import Plan, audit
from robaudit.audit.probes import AutoAttack, Fast
from robaudit.engine.precision import default_precision
from robaudit.types import Examples


def autoattack(bench: Bench) -> Iterator[Line]:
    """Native AutoAttack against the library alone; verdicts and breaks checked."""
    some, notes = bench.first(bench.autoattacked), []
    theirs = _library_alone(bench, some)
    ours, done = bench.timed(lambda: _audited(bench, some, AutoAttack(engine="native")))
    robust = done.outcomes["test.accuracy.autoattack"].bool()
    bench.known["native"] = ours, robust
    notes.append(_confirmed(bench, some, done))
    if theirs is not None:
        notes.append(_compared(robust, theirs[1], "the library"))
    spent = done.report.get("accuracy.autoattack").details
    line = Line(
        f"native AutoAttack, {len(some)} images",
        ours,
        "pyautoattack" if theirs else absent("pyautoattack"),
        theirs[0] if theirs else None,
        target=0.15,
        images=len(some),
        work=bench.flops.of(spent["forwards"], spent["backwards"]),
        notes=(*notes, f"searched in {done.report.provenance.precision}"),
    )
    yield line
    again, _ = bench.timed(lambda: _audited(bench, some, AutoAttack(engine="native")))
    yield replace(line, what="the same once more", seconds=again, target=None, notes=())


def library(bench: Bench) -> Iterator[Line]:
    """The library through robaudit, which is to be no slower than alone."""
    some = bench.first(bench.autoattacked)
    theirs = _library_alone(bench, some)
    if theirs is None:
        yield Line("the library through robaudit", 0.0, absent("pyautoattack"))
        return
    ours, done = bench.timed(lambda: _audited(bench, some, AutoAttack()))
    robust = done.outcomes["test.accuracy.autoattack"].bool()
    notes = _compared(robust, theirs[1], "the library alone"), _confirmed(bench, some, done)
    yield Line(
        "the library through robaudit", ours, "alone", theirs[0], 1.0, len(some), notes=notes
    )


def fast(bench: Bench) -> Iterator[Line]:
    """The fast tier against native AutoAttack."""
    some = bench.first(bench.autoattacked)
    _audited(bench, bench.first(4), Fast())
    ours, done = bench.timed(lambda: _audited(bench, some, Fast()))
    robust = done.outcomes["test.accuracy.fast"].bool()
    base, verdicts = bench.known.get("native", (None, None))
    notes = [_confirmed(bench, some, done)]
    if verdicts is not None:
        above = 100 * float(robust.double().mean() - verdicts.double().mean())
        notes.append(f"{above:+.2f} points from native AutoAttack (target: at most +0.30)")
    yield Line("fast", ours, "native AutoAttack", base, 0.05, len(some), notes=tuple(notes))


def _library_alone(bench: Bench, some: Examples) -> tuple[float, Tensor] | None:
    """Seconds and which images stand."""
    if absent("pyautoattack"):
        return None
    if "alone" not in bench.known:
        from pyautoattack import AutoAttack as Library

        x, y = some.x.to(bench.device), some.y.to(bench.device)
        norm = bench.threat.norm.capitalize()
        attack = Library(
            bench.model, norm=norm, eps=bench.threat.eps, seed=0, version="standard",
            device=str(bench.device),
        )  # fmt: skip
        with default_precision():
            bench.model(x[:1])
            spent, found = bench.timed(lambda: attack.run_standard_evaluation(x, y, batch_size=250))
        bench.known["alone"] = spent, (found[1] == y).cpu()
    return bench.known["alone"]


def _audited(bench: Bench, some: Examples, *probes: Any) -> Any:
    return audit(bench.model, some, bench.threat, Plan(n=len(some), probes=probes))


def _compared(ours: Tensor, theirs: Tensor, whose: str) -> str:
    apart = (ours != theirs).nonzero()[:, 0].tolist()
    named = f", images {', '.join(map(str, apart[:12]))}" if apart else ""
    shares = [f"{100 * float(robust.double().mean()):.2f} %" for robust in (ours, theirs)]
    counted = f"{len(apart)} of {len(ours)} verdicts differ{named}"
    return f"{counted}; accuracy {shares[0]}, {whose} {shares[1]}"


def _confirmed(bench: Bench, some: Examples, done: Any) -> str:
    """Whether the network in float32 is broken by each image that counts as a break."""
    (name,) = (n for n in done.outcomes if n.startswith("test.accuracy.") and "clean" not in n)
    fell = done.outcomes["test.accuracy.clean"].bool() & ~done.outcomes[name].bool()
    checked = verify(bench.model, some.x, done.adversarial.x, some.y, bench.threat).breaks
    wrong = int((fell & ~checked).sum())
    return (
        f"{int(fell.sum())} breaks, "
        + ("each" if not wrong else f"{wrong} NOT")
        + (" confirmed in float32")
    )


def pgd(bench: Bench) -> Iterator[Line]:
    x, y = bench.examples.x, bench.examples.y
    base = None
    if not absent("torchattacks"):
        import torchattacks

        bench.model.requires_grad_(True)  # as its users have it
        attack = torchattacks.PGD(
            bench.model, eps=bench.threat.eps, alpha=bench.threat.eps / 4, steps=20
        )

        def theirs() -> float:
            right = 0
            for a, b in zip(x.split(256), y.split(256), strict=True):
                a, b = a.to(bench.device), b.to(bench.device)
                right += int((bench.model(attack(a, b)).argmax(1) == b).sum())
            return right / len(x)

        with default_precision():
            theirs()
            base, share = bench.timed(theirs, 3)
        bench.model.requires_grad_(False)
    for mode, target in (("loss", 0.5), ("accuracy", 0.25)):
        run = partial(ra.attacks.pgd, bench.model, x, y, bench.threat, steps=20, mode=mode)
        run()
        ours, found = bench.timed(run, 3)
        robust = 100 * float(found.robust.double().mean())
        notes = [f"accuracy {robust:.2f} %, searched in {found.searched}"]
        if base is not None:
            notes.append(f"torchattacks' {100 * share:.2f} %, of last iterates")
        yield Line(
            f"PGD-20, {len(x)} images, {mode} mode", ours,
            "torchattacks" if base else absent("torchattacks"), base, target, len(x),
            bench.flops.of(found.forwards, found.backwards), notes=tuple(notes),
        )  # fmt: skip
