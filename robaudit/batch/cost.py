"""What a job will cost: passes by its plan's settings, seconds by a calibration on this device."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from robaudit.attacks.objectives import cross_entropy
from robaudit.audit import audit, preset
from robaudit.audit.plan import Pgd, Plan, Wci
from robaudit.batch.jobs import Job
from robaudit.batch.stages import stages
from robaudit.batch.work import load_model
from robaudit.curvature import layer_traces, spectrum
from robaudit.engine import TILE, Runner, device_of, frozen
from robaudit.flatness.protocols import reference_restarts
from robaudit.report import fill_folder
from robaudit.types import Examples, ThreatModel

# Reference AutoAttack, standard: steps of APGD and FAB, classes they target, Square's queries.
_STEPS, _TARGETS, _QUERIES = 100, 9, 5000
# Images that the checks before every stage pass, whatever it is on: two passes of the first 64 and
# the derivative on 16 of them.
_CHECKED = 550
# A gradient in the weights of a perturbed network beside that in the images.
_JOINT = 1.5


@dataclass(frozen=True)
class Speed:
    """What one network takes on this device, in seconds.

    Attributes:
        load, write: of the checkpoint and of the report.
        audit: what every stage takes before its probe, on one tile of images.
        forward, gradient, trace, product: for one image.
        right, robust: shares of the first images that are classified correctly, and within the
            threat model.
    """

    load: float
    write: float
    audit: float
    forward: float
    gradient: float
    trace: float
    product: float
    right: float
    robust: float


@dataclass(frozen=True)
class Cost:
    """Images passed forward, how many of them backward too, and seconds."""

    forwards: int
    backwards: int
    seconds: float


def calibrate(job: Job, examples: Examples, device: str) -> Speed:
    """Measure a job's network on its first images, in a few seconds.

    Everything is done once before its time is taken: a run has many jobs, and one first time.

    Raises:
        RobauditError: it cannot be loaded, or does not fit the examples.
    """
    model = load_model(job, examples, device)
    load = _seconds(lambda: load_model(job, examples, device))
    few = _first(examples, TILE)
    x, y = few.x, few.y
    threat = ThreatModel(job.norm, job.eps)
    plan = preset(job.preset)
    small = Plan(n=TILE, pgd=Pgd(10), wci=Wci(Pgd(10)))
    found = audit(model, few, threat, small, seed=job.seed)
    with tempfile.TemporaryDirectory() as folder:
        arrays = {name: rows.numpy() for name, rows in found.outcomes.items()}
        write = min(
            _seconds(lambda: fill_folder(Path(folder) / "report", found.report, arrays))
            for _ in range(2)
        )
    device_there = device_of(model)
    with frozen(model):
        runner = Runner(model, device_there)
        gradient = min(_seconds(lambda: runner.gradient(cross_entropy, x, y)) for _ in range(5))
        forward = min(_seconds(lambda: runner.logits(x)) for _ in range(5))
    trace = min(_seconds(lambda: layer_traces(model, x, y)) for _ in range(2))
    product = 0.0
    if plan.hessian is not None:
        clock = time.perf_counter()
        done = spectrum(model, x, y, top=1, probes=1, steps=6, density_steps=2, tolerance=1.0)
        product = (time.perf_counter() - clock) / done.products
    bare = Plan(n=TILE)
    nothing = min(_seconds(lambda: audit(model, few, threat, bare, seed=job.seed)) for _ in "12")
    clean, robust = (found.report.get(name) for name in ("accuracy.clean", "accuracy.pgd"))
    return Speed(
        load, write, nothing, forward / TILE, gradient / TILE, trace / TILE, product / TILE,
        clean.value or 0.0 if clean else 0.0, robust.value or 0.0 if robust else 0.0,
    )  # fmt: skip


def cost(job: Job, n: int, n_train: int, speed: Speed) -> Cost:
    """A job on ``n`` examples and, for the gaps, ``n_train`` of the training split.

    Images are passed in whole tiles. AutoAttack's part follows from the share of images that the
    calibration's PGD leaves standing, and is the roughest.
    """
    plan = preset(job.preset)
    forwards = backwards = 0.0
    other = 0.0  # seconds of what is neither
    rows = _tiled(n) + _tiled(n_train)
    made: set[Pgd] = set()

    def climb(pgd: Pgd, images: float) -> None:
        nonlocal forwards, backwards
        forwards += images * (1 + pgd.restarts * (pgd.steps + 1))
        backwards += images * pgd.restarts * pgd.steps

    def once(pgd: Pgd, images: float) -> None:
        if pgd not in made:
            made.add(pgd)
            climb(pgd, images)

    count = len(stages(plan))
    forwards += count * (rows + _CHECKED)
    if plan.pgd is not None:
        once(plan.pgd, rows)
    if plan.cw is not None:
        climb(plan.cw, _tiled(n))
    if plan.autoattack is not None:
        right, robust = n * speed.right, n * speed.robust
        gradients = right * _STEPS + robust * 2 * _TARGETS * _STEPS
        forwards += gradients + robust * _QUERIES
        backwards += gradients
    if plan.wci is not None:
        once(plan.wci.pgd, rows)
        forwards += rows
        other += speed.trace * rows
    if plan.hessian is not None:
        some = _tiled(min(n, plan.hessian.n or n))
        once(plan.hessian.pgd, some)
        probes, steps = plan.hessian.probes, plan.hessian.steps
        products = 2 * steps + (probes - 1) * plan.hessian.density_steps
        forwards += some * products
        other += some * (products * speed.product + speed.trace)
    if plan.average is not None:
        settings = plan.average
        restarts = reference_restarts(settings.protocol, settings.pgd.restarts)
        once(replace(settings.pgd, restarts=restarts), _tiled(n))
        climb(settings.pgd, _tiled(n) * settings.perturbations)
    if plan.worst is not None:
        joint = _tiled(n) * plan.worst.restarts * (plan.worst.passes + 1)
        forwards += joint
        backwards += joint
        other += joint * (_JOINT - 1) * speed.gradient
        climb(plan.worst.pgd, _tiled(n))
    seconds = backwards * speed.gradient + max(0.0, forwards - backwards) * speed.forward
    fixed = speed.load + speed.write + count * speed.audit
    return Cost(round(forwards), round(backwards), fixed + seconds + other)


def _tiled(n: int) -> int:
    return math.ceil(n / TILE) * TILE


def _first(examples: Examples, n: int) -> Examples:
    rows = slice(0, n)
    return examples.taken(rows)


def _seconds(run: Callable[[], object]) -> float:
    clock = time.perf_counter()
    run()
    return time.perf_counter() - clock
