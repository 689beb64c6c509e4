"""Robust accuracy within a union of norms: an example has to withstand every one of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, get_args

from robaudit.audit.numbers import LEVEL, accuracy
from robaudit.audit.probe import Attack
from robaudit.audit.probes.fast import Fast
from robaudit.datasets import DATA_SETS
from robaudit.errors import NotMeasuredError
from robaudit.measures import measure
from robaudit.schema import Measurement
from robaudit.types import Norm, ThreatModel, radius

if TYPE_CHECKING:
    from robaudit.audit import unions
    from robaudit.audit.context import Context


@dataclass(frozen=True)
class Union(Attack):
    """The fast tier in each norm of a list, each adversarial example verified in its own ball.

    Attributes:
        threats: the list; empty for linf, l2 and l1 at the radii that are usual for the data set,
            the audited threat model in the place of its norm's.
        each: attack every correctly classified example in every norm. Otherwise what one norm broke
            is not attacked in the next, which gives the same accuracy for less.
    """

    name = "union"
    measures = (
        measure(
            "accuracy.union",
            "Robust accuracy, union of norms",
            place=72,
            attack_named="the attacks in every norm of the union",
            stages=("clean", "union"),
            passes=4500,
            heading="Union\nacc. %",
            study="union accuracy",
            outcome=True,
            formula="share correct at `x` that the fast tier breaks in no norm of the list, each "
            "at its radius, nor any other attack of the audit in its own norm; an upper bound",
        ),
    )

    threats: tuple[ThreatModel, ...] = ()
    each: bool = False

    def price(self, n: int, n_train: int) -> int:
        return n * Fast.measures[0].passes * (len(self.threats) or len(get_args(Norm)))

    def described(self, threat: ThreatModel) -> dict[str, Any]:
        return {"union": ", ".join(map(_words, self.threats)) or "usual", "each": self.each}

    def run(self, context: Context) -> list[Measurement]:
        from robaudit.attacks.diagnostics import Diagnostics
        from robaudit.audit.unions import in_every_norm

        threats = self.threats or usual_union(context.splits[context.main].name, context.threat)
        # What is known of the audit's own threat model costs nothing.
        own = [one for one in threats if one.norm == context.threat.norm]
        others = [one for one in threats if one not in own]
        norms = in_every_norm(context, [*own, *others], self.each)
        left = context.outcomes[f"{context.main}.accuracy.clean"].clone()
        for norm in norms:
            left &= ~norm.broken
        context.keep(context.main, "accuracy.union", left)
        _keep(context, norms, self.each)
        doubts, warnings, seen = [], [], Diagnostics(0, 0, 0, 0, 0)
        for norm in norms:
            if norm.found is None:
                continue
            where = f"within {_words(norm.threat)}"
            doubts += [f"{where}: {text}" for text in norm.found.measurement.doubts]
            warnings += [f"{where}: {text}" for text in norm.found.measurement.warnings]
            seen += norm.found.diagnostics or Diagnostics(0, 0, 0, 0, 0)
        reused = list(dict.fromkeys(name for norm in norms for name in norm.reused))
        runs = [norm.found.measurement.details for norm in norms if norm.found is not None]
        return [
            accuracy(
                "accuracy.union",
                context.main,
                left,
                settings={
                    **self.described(context.threat),
                    **({"reused": reused} if reused else {}),
                },
                details={
                    "union": _rows(norms, self.each),
                    "forwards": sum(run["forwards"] for run in runs),
                    "backwards": sum(run["backwards"] for run in runs),
                    "diagnostics": asdict(seen),
                },
                warnings=warnings,
                doubts=doubts,
            )
        ]


def usual_union(data: str, threat: ThreatModel) -> tuple[ThreatModel, ...]:
    """Every norm at its usual radius for a data set, ``threat`` in the place of its norm's.

    Raises:
        NotMeasuredError: a norm has no usual radius there.

    >>> [(one.norm, one.eps) for one in usual_union("cifar10", ThreatModel("l2", 1.0))]
    [('linf', 0.03137254901960784), ('l2', 1.0), ('l1', 12.0)]
    """
    found, unknown = [], []
    for norm in get_args(Norm):
        usual: float | None = getattr(DATA_SETS.get(data), norm, None)
        if norm == threat.norm:
            found.append(threat)
        elif usual is not None:
            found.append(ThreatModel(norm, usual))
        else:
            unknown.append(norm)
    if unknown:
        raise NotMeasuredError(
            f"no usual radius is known in {' and '.join(unknown)} for {data}: name the union, as "
            "in --union linf:8/255,l2:0.5,l1:12"
        )
    return tuple(found)


def _words(threat: ThreatModel) -> str:
    return f"{threat.norm} {radius(threat.eps)}"


def _keep(context: Context, norms: Sequence[unions.InNorm], each: bool) -> None:
    """Per-example outcomes, and the images in the audit's own ball, for what comes after."""
    import torch

    from robaudit.attacks.result import STANDS, WRONG
    from robaudit.engine.spilled import copied

    correct = context.outcomes[f"{context.main}.accuracy.clean"]
    first = torch.where(correct, STANDS, WRONG).to(torch.int8)
    for at, norm in enumerate(norms):
        first[norm.broken & (first == STANDS)] = at
        if each:
            context.keep(context.main, f"union.{norm.threat.norm}", correct & ~norm.broken)
        if norm.threat == context.threat and norm.found is not None:
            images = copied(context.splits[context.main].x)
            images[torch.nonzero(norm.found.broken)[:, 0]] = norm.found.images
            context.broken["union"] = images, norm.found.broken
    context.keep(context.main, "union.first", first)


def _rows(norms: Sequence[unions.InNorm], each: bool) -> list[dict[str, Any]]:
    """What each norm did, in the order in which they were tried."""
    from robaudit.statistics import clopper_pearson

    n = len(norms[0].tried)
    left = norms[0].tried.clone()
    rows = []
    for norm in norms:
        left &= ~norm.broken
        row: dict[str, Any] = {
            "norm": norm.threat.norm,
            "eps": norm.threat.eps,
            "tried": int(norm.tried.sum()),
            "before": int(norm.before.sum()),
            "broken": int(norm.broken.sum()),
            "left": int(left.sum()),
        }
        if each:
            standing = row["tried"] - row["broken"]
            interval = clopper_pearson(standing, n, LEVEL)
            others = norm.broken.clone()
            for other in norms:
                if other is not norm:
                    others &= ~other.broken
            row |= {
                "accuracy": standing / n,
                "low": interval.low,
                "high": interval.high,
                "alone": int(others.sum()),
            }
        rows.append(row)
    return rows
