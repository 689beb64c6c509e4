"""The rows of ``gpu.py``: each runs robaudit and a peer on the same images."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import flatness
from gpu_attacks import autoattack, fast, library, pgd
from gpu_bench import Bench, Line, Row
from gpu_curvature import eigenvalue, traces
from gpu_passes import passes

import robaudit as ra
from robaudit.audit import audit, preset
from robaudit.engine.precision import default_precision


def average(bench: Bench) -> Iterator[Line]:
    some, draws = bench.first(bench.flattened), 2 if bench.smoke else 10
    x, y = some.x.to(bench.device), some.y.to(bench.device)
    reference = ra.attacks.pgd(bench.model, some.x, some.y, bench.threat, steps=1)
    plain = partial(flatness.plain_average, bench.model, x, y, bench.threat)
    with default_precision():
        base, want = bench.timed(lambda: plain(draws, True))
    ours, found = bench.timed(
        lambda: ra.flatness.average(
            bench.model, some.x, some.y, bench.threat, perturbations=draws, steps=flatness.STEPS,
            reference=reference,
        )
    )  # fmt: skip
    apart = max(abs(a - b) / abs(b) for a, b in zip(found.perturbed, want, strict=True))
    notes = (f"robust losses differ by {apart:.1e} at most; searched in {found.searched}",)
    yield Line(
        f"average flatness, {len(x)} images, {draws} draws", ours, "plain loop", base, 0.3,
        notes=notes,
    )  # fmt: skip


def standard(bench: Bench) -> Iterator[Line]:
    """The whole audit that ``robaudit audit --preset standard`` runs."""
    some = bench.first(1000)
    plan = replace(preset("quick" if bench.smoke else "standard"), n=len(some))
    ours, done = bench.timed(lambda: audit(bench.model, some, bench.threat, plan))
    notes = [
        f"{m.name} {m.split}: {m.status}, {m.value}, {m.seconds:.1f} s"
        for m in done.report.measurements
        if m.seconds is not None
    ]
    notes += [f"{m.name} failed: {m.reason}" for m in done.report.failed]
    yield Line(f"audit, preset standard, {len(some)} images", ours, limit=60, notes=tuple(notes))


ROWS = (
    Row("passes", passes, 150, least=30),
    Row("AutoAttack", autoattack, 150, least=60),
    Row("fast", fast, 30, least=5),
    Row("PGD", pgd, 30, least=5),
    Row("flatness", average, 40),
    Row("traces", traces, 40),
    Row("eigenvalue", eigenvalue, 40),
    Row("audit", standard, 120, least=60),
    Row("library", library, 120, least=60),
)
