"""Probes by several attacks in turn: AutoAttack and the fast tier; and the distance FAB finds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from robaudit import attacks
from robaudit.attacks import AttackResult
from robaudit.attacks.diagnostics import BLACK_BOX
from robaudit.attacks.result import known
from robaudit.attacks.verification import verify
from robaudit.audit.accuracy import curve
from robaudit.audit.context import Context, Radius
from robaudit.audit.cross_check import rivalled
from robaudit.audit.doubts import signs_of_masking
from robaudit.audit.numbers import LEVEL, accuracy
from robaudit.audit.plan import AutoAttack, Distance, Fast, Square
from robaudit.engine import Runner, Voted, frozen
from robaudit.engine.spilled import copied
from robaudit.errors import NotMeasuredError
from robaudit.schema import Measurement
from robaudit.statistics import median_interval
from robaudit.types import Cache, Progress, ThreatModel

# Images of these rows under attack, run by the engine or, where that misled, as the network stands.
Run = Callable[[ThreatModel, Tensor, bool, Progress | None], AttackResult]


def auto(context: Context, settings: AutoAttack) -> list[Measurement]:
    """Robust accuracy under AutoAttack, by the reference library or natively."""
    examples = context.splits[context.main]
    native = settings.engine == "native"

    def run(
        threat: ThreatModel, rows: Tensor, plain: bool, progress: Progress | None
    ) -> AttackResult:
        cache = autoattack_memory(context, settings, threat, plain)
        x, y = examples.x[rows], examples.y[rows]
        if not native:
            return by_library(context, settings, threat, x, y, cache, plain, progress)
        return attacks.native_autoattack(
            _searcher(context, plain), x, y, threat, version=settings.version, seed=context.seed,
            index=examples.index[rows], cache=cache, progress=progress,
        )  # fmt: skip

    label = f"AutoAttack {settings.version}{' (native)' if native else ''}"
    return _measured(context, "accuracy.autoattack", label, autoattack_settings(settings), run)


def autoattack_memory(
    context: Context, settings: AutoAttack, threat: ThreatModel, plain: bool = False
) -> Cache:
    """Where the pieces of this AutoAttack are kept."""
    return context.keeping("autoattack", settings, *_which(context, threat), plain)


def _which(context: Context, threat: ThreatModel) -> tuple[object, ...]:
    """What the pieces of an attack within one radius depend on.

    Within a smaller radius only those are attacked that the radii below it left standing.
    """
    radii = () if threat == context.threat else context.radii
    return threat.eps, radii, context.precision


def by_library(
    context: Context,
    settings: AutoAttack,
    threat: ThreatModel,
    x: Tensor,
    y: Tensor,
    cache: Cache,
    plain: bool = False,
    progress: Progress | None = None,
) -> AttackResult:
    """AutoAttack by its reference library; ``plain``: on the network as it stands."""
    model = context.model
    if isinstance(model, Voted):
        if settings.version != "rand":
            raise NotMeasuredError(
                "the network draws at random, which the library's version "
                f"{settings.version} does not average over: give --version rand, or --engine native"
            )
        model = model.network
    return attacks.autoattack(
        model, x, y, threat, version=settings.version, seed=context.seed,
        batch_size=settings.batch_size, faster=not plain, cache=cache, progress=progress,
    )  # fmt: skip


def autoattack_settings(settings: AutoAttack) -> dict[str, Any]:
    """What a measurement says of its AutoAttack."""
    native = settings.engine == "native"
    described = {**asdict(settings), "engine": "robaudit" if native else "pyautoattack"}
    if native:
        del described["batch_size"]
    return described


def fast(context: Context, settings: Fast) -> list[Measurement]:
    """Robust accuracy under APGD on cross-entropy and on the nearest classes."""
    examples = context.splits[context.main]

    def run(
        threat: ThreatModel, rows: Tensor, plain: bool, progress: Progress | None
    ) -> AttackResult:
        return attacks.fast(
            _searcher(context, plain), examples.x[rows], examples.y[rows], threat,
            seed=context.seed, index=examples.index[rows],
            cache=context.keeping("fast", settings, *_which(context, threat), plain),
            progress=progress,
        )  # fmt: skip

    return _measured(context, "accuracy.fast", "fast tier", asdict(settings), run)


def square(context: Context, settings: Square) -> list[Measurement]:
    """Robust accuracy under Square, which needs no gradients."""
    examples = context.splits[context.main]

    def run(
        threat: ThreatModel, rows: Tensor, plain: bool, progress: Progress | None
    ) -> AttackResult:
        return attacks.square(
            _searcher(context, plain), examples.x[rows], examples.y[rows], threat,
            queries=settings.queries, seed=context.seed, index=examples.index[rows],
            progress=progress,
        )  # fmt: skip

    return _measured(context, "accuracy.square", "Square", asdict(settings), run)


def distance(context: Context, settings: Distance) -> list[Measurement]:
    """Median over examples of the distance to the nearest misclassified point found.

    An upper bound: a nearer point may exist. Misclassified images have distance zero.
    """
    examples = context.splits[context.main]
    with context.watch(f"FAB on {len(examples)} {context.main} examples") as progress:
        with frozen(context.model):
            found = attacks.fab(
                _searcher(context, False), examples.x, examples.y, context.threat,
                restarts=settings.restarts, seed=context.seed, index=examples.index,
                progress=progress,
            )  # fmt: skip
        judged = verify(context.model, examples.x, known(found.nearest), examples.y, context.threat)
    confirmed = judged.wrong & judged.in_box
    distances = torch.where(confirmed, judged.distance, torch.inf)
    context.keep(context.main, "distance", distances)
    ordered = distances.sort().values.numpy()
    middle, interval = median_interval(ordered, LEVEL)
    common: dict[str, Any] = {
        "name": "distance.median",
        "split": context.main,
        "settings": {**asdict(settings), "attack": "fab-t", "norm": context.threat.norm},
        "n": len(examples),
    }
    if middle is None:
        reason = "no misclassified point was found for half of the examples"
        return [Measurement(status="skipped", reason=reason, **common)]
    within = int((distances <= context.threat.eps).sum())
    return [
        Measurement(
            value=middle,
            unit=context.threat.norm,
            interval=interval,
            details={
                "found": int(confirmed.sum()),
                "within_eps": within,
                "forwards": found.forwards,
                "backwards": found.backwards,
            },
            **common,
        )
    ]


def _searcher(context: Context, plain: bool) -> Runner:
    """Runs the network as fast as it goes, unless ``plain``; what is found is verified."""
    return context.runner(context.model if plain else context.engine.forward)


def _measured(
    context: Context, name: str, label: str, settings: dict[str, Any], run: Run
) -> list[Measurement]:
    """Attack what is right when clean, and count what the network itself confirms.

    A curve comes after that, radius by radius on what still stands, and changes nothing of it.
    """
    examples = context.splits[context.main]
    n = len(examples)
    clean = context.outcomes[f"{context.main}.accuracy.clean"]
    notes: list[str] = []
    doubts: list[str] = []

    def attack(threat: ThreatModel, standing: Tensor) -> tuple[Tensor, Tensor, list[AttackResult]]:
        """Who withstands, an image for each example, and the runs.

        What the search broke and the network itself is not broken by is attacked once more.
        """
        robust, images, runs = standing.clone(), copied(examples.x), list[AttackResult]()
        rows = torch.nonzero(standing)[:, 0]
        where = f" within {threat.eps:.3g}" if context.radii else ""
        for plain in (False, True):
            if len(rows) == 0:
                break
            title = f"{label} on {len(rows)} {context.main} examples{where}"
            with context.watch(title) as progress, frozen(context.model):
                made = run(threat, rows, plain, progress)
            judged = verify(context.model, examples.x[rows], made.x, examples.y[rows], threat)
            confirmed = ~made.robust & judged.breaks
            robust[rows[confirmed]] = False
            images[rows[confirmed]] = made.x[confirmed]
            notes.extend(made.notes)
            runs.append(made)
            rows = rows[~made.robust & ~judged.breaks]
        return robust, images, runs

    robust, broken_x, runs = attack(context.threat, clean)
    attacked = runs[0] if runs else None
    radii: list[Radius] = []
    for threat in context.smaller:
        standing = attack(threat, radii[-1].robust if radii else clean)[0]
        radii.append(Radius(threat.eps, standing))
    if radii:
        radii.append(Radius(context.threat.eps, radii[-1].robust & robust))
    context.keep(context.main, name, robust)
    context.broken[name.removeprefix("accuracy.")] = broken_x, ~robust & clean
    details: dict[str, Any] = {
        "forwards": sum(made.forwards for made in runs),
        "backwards": sum(made.backwards for made in runs),
        **curve(context, radii),
    }
    if attacked is not None and attacked.diagnostics is not None:
        details["attacks"] = _after_each(attacked, int(clean.sum()), n)
        found = attacked.diagnostics
        if attacked.reached is not None and not set(BLACK_BOX) & set(attacked.accuracies):
            standing = torch.nonzero(attacked.robust)[:, 0]
            rows = torch.nonzero(clean)[standing, 0]
            found += rivalled(context, rows, "ce", attacked.reached[standing], attacked)
        details["diagnostics"] = asdict(found)
        doubts = signs_of_masking(found)
    native = attacked is not None and attacked.reached is not None
    # The reference library has an engine of its own, always in float32.
    by_library = attacked is not None and attacked.diagnostics is not None and not native
    if context.engine.used and not by_library:
        details["engine"] = list(context.engine.used)
    if attacked is not None and native:
        details["passes"] = {key: list(value) for key, value in attacked.passes.items()}
    return [
        accuracy(
            name, context.main, robust, settings=settings, details=details,
            warnings=list(dict.fromkeys(notes)), doubts=doubts,
        )
    ]  # fmt: skip


def _after_each(attacked: AttackResult, entered: int, n: int) -> dict[str, float]:
    """Share of all examples that each attack left standing."""
    left, after = entered, {}
    for place, stage in enumerate(attacked.accuracies):
        left -= int((known(attacked.broken_by) == place).sum())
        after[stage] = left / n
    return after
