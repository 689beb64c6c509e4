"""Attacks that search with a fast version of the network; the original confirms what they find."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from robaudit.attacks import AttackResult
from robaudit.attacks.diagnostics import BLACK_BOX
from robaudit.attacks.result import known
from robaudit.attacks.verification import verify
from robaudit.audit.context import Context, Radius
from robaudit.audit.cross_check import rivalled
from robaudit.audit.doubts import signs_of_masking
from robaudit.audit.numbers import accuracy, curve
from robaudit.audit.probe import Attack
from robaudit.engine import frozen
from robaudit.engine.spilled import copied
from robaudit.schema import Measurement
from robaudit.types import Cache, Progress, ThreatModel


@dataclass(frozen=True)
class Search:
    """One run of an attack on some rows of the audited split.

    Attributes:
        plain: on the original network in float32, not on the one that the engine made fast.
        cache: keeps its finished pieces. Within a smaller radius only those examples are attacked
            that the radii below it left standing.
    """

    context: Context
    threat: ThreatModel
    rows: Tensor
    plain: bool
    cache: Cache
    progress: Progress | None

    @property
    def x(self) -> Tensor:
        return self.context.splits[self.context.main].x[self.rows]

    @property
    def y(self) -> Tensor:
        return self.context.splits[self.context.main].y[self.rows]

    def by(self, attack: Callable[..., AttackResult], **settings: Any) -> AttackResult:
        """Run an attack of :mod:`robaudit.attacks` with these settings."""
        return attack(
            self.context.searcher(self.plain),
            self.x,
            self.y,
            self.threat,
            seed=self.context.seed,
            index=self.context.splits[self.context.main].index[self.rows],
            cache=self.cache,
            progress=self.progress,
            **settings,
        )


def confirmed(
    context: Context, probe: Attack, label: str, run: Callable[[Search], AttackResult]
) -> list[Measurement]:
    """Attack the correctly classified examples; count what the original network confirms.

    The curve over smaller radii is measured afterwards, each radius on the examples that withstood
    the one before; the accuracy at the threat model's radius does not depend on it.

    Args:
        label: of the attack, in progress displays.
    """
    name = f"accuracy.{probe.name}"
    examples = context.splits[context.main]
    n = len(examples)
    clean = context.outcomes[f"{context.main}.accuracy.clean"]
    notes: list[str] = []
    doubts: list[str] = []

    def attack(threat: ThreatModel, standing: Tensor) -> tuple[Tensor, Tensor, list[AttackResult]]:
        """Which examples withstand, an image for each example, and the results of the runs.

        Examples whose adversarial image does not break the original network are attacked once
        more, on that network.
        """
        robust, images, runs = standing.clone(), copied(examples.x), list[AttackResult]()
        rows = torch.nonzero(standing)[:, 0]
        where = f" within {threat.eps:.3g}" if context.radii else ""
        for plain in (False, True):
            if len(rows) == 0:
                break
            title = f"{label} on {len(rows)} {context.main} examples{where}"
            radii = () if threat == context.threat else context.radii
            kept = (probe, threat.eps, radii, context.engine.precision, plain)
            cache = context.keeping(probe.name, *kept)
            with context.watch(title) as bar, frozen(context.model):
                progress = context.work.through(probe.price(n, 0), bar)
                made = run(Search(context, threat, rows, plain, cache, progress))
            found = made.x if made.broken_x is None else made.broken_x
            judged = verify(context.model, examples.x[rows], found, examples.y[rows], threat)
            confirmed = ~made.robust & judged.breaks
            robust[rows[confirmed]] = False
            images[rows[confirmed]] = found[confirmed]
            notes.extend(made.notes)
            runs.append(made)
            rows = rows[~made.robust & ~judged.breaks]
        return robust, images, runs

    robust, broken_x, runs = attack(context.threat, clean)
    attacked = runs[0] if runs else None
    within: list[Radius] = []
    for threat in context.smaller:
        standing = attack(threat, within[-1].robust if within else clean)[0]
        within.append(Radius(threat.eps, standing))
    if within:
        within.append(Radius(context.threat.eps, within[-1].robust & robust))
        context.nearer[probe.name] = clean & ~within[-1].robust
    context.keep(context.main, name, robust)
    context.broken[probe.name] = broken_x, ~robust & clean
    details: dict[str, Any] = {
        "forwards": sum(made.forwards for made in runs),
        "backwards": sum(made.backwards for made in runs),
        **curve(context, within),
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
    ensemble = attacked is not None and attacked.diagnostics is not None
    # The reference library always runs in float32 and does not give the highest objective.
    by_library = ensemble and attacked is not None and attacked.reached is None
    if not by_library:
        details |= context.engine_details
    if attacked is not None and ensemble and not by_library:
        details["passes"] = {key: list(value) for key, value in attacked.passes.items()}
    return [
        accuracy(
            name,
            context.main,
            robust,
            settings=probe.described(context.threat),
            details=details,
            warnings=list(dict.fromkeys(notes)),
            doubts=doubts,
        )
    ]


def _after_each(attacked: AttackResult, entered: int, n: int) -> dict[str, float]:
    """By attack, the share of all examples that are still robust after it."""
    left, after = entered, {}
    for place, stage in enumerate(attacked.accuracies):
        left -= int((known(attacked.broken_by) == place).sum())
        after[stage] = left / n
    return after
