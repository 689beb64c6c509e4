"""Clean and robust accuracy of every class, and the worst of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from robaudit.audit.numbers import LEVEL
from robaudit.audit.probe import Probe
from robaudit.audit.probes.fast import Fast
from robaudit.measures import measure
from robaudit.schema import Measurement

if TYPE_CHECKING:
    from robaudit.audit.classes import Outcome
    from robaudit.audit.context import Context
    from robaudit.audit.plan import Plan
    from robaudit.types import Examples, ThreatModel

_LISTED = 8


@dataclass(frozen=True)
class Classes(Probe):
    """What the attacks of the audit left of each class; it costs a pass over what they broke.

    Attributes:
        fast: run the fast tier first on what they left. It also runs where no attack did.
    """

    name = "classes"
    reads_attacks = True
    measures = (
        measure(
            "accuracy.worst_class",
            "Robust accuracy of the worst class",
            place=74,
            heading="Worst\nclass %",
            study="worst class",
            outcome=True,
            formula="the smallest, over classes, of the share of a class's examples that are "
            "correct at `x` and broken by no attack of the audit; as a minimum of estimates it is "
            "biased downwards",
            error="from the smallest lower to the smallest upper end of the classes' "
            "Clopper-Pearson intervals, each of `k` at level `1 - 0.05 / k`: an interval of the "
            "smallest true accuracy",
        ),
    )

    fast: bool = False

    @classmethod
    def fitting(cls, plan: Plan) -> Self:
        """After the fast tier, so that the number does not depend on what else is measured."""
        return cls(fast=True)

    def described(self, threat: ThreatModel) -> dict[str, Any]:
        return {}

    def price(self, n: int, n_train: int) -> int:
        return n * (1 + self.fast * Fast.measures[0].passes)

    def run(self, context: Context) -> list[Measurement]:
        from robaudit.audit.classes import outcome_of

        doubts, warnings = self._attacked(context)
        found = []
        for split in context.splits:
            known = outcome_of(context, split)
            if known is not None:
                said = (doubts, warnings) if split == context.main else ([], [])
                found.append(_measured(context, split, known, *said))
        return found

    def _attacked(self, context: Context) -> tuple[list[str], list[str]]:
        """Run the fast tier where it is to run, and give its doubts and warnings."""
        import torch

        from robaudit.audit.certificates import broken_by, standing
        from robaudit.audit.unions import by_fast
        from robaudit.engine.spilled import copied

        done = f"{context.main}.accuracy.{Fast.name}" in context.outcomes
        if done or not (self.fast or not broken_by(context)):
            return [], []
        made = by_fast(context, context.threat, standing(context))
        images = copied(context.splits[context.main].x)
        broken = torch.zeros(len(images), dtype=torch.bool)
        if made is not None:
            images[torch.nonzero(made.broken)[:, 0]] = made.images
            broken = made.broken
        context.broken[Fast.name] = images, broken
        return ([], []) if made is None else (made.measurement.doubts, made.measurement.warnings)


def _measured(
    context: Context, split: str, known: Outcome, doubts: list[str], warnings: list[str]
) -> Measurement:
    from robaudit.audit.classes import absent, class_rows, confusion, name_of, shares
    from robaudit.statistics import least

    examples = context.splits[split]
    clean, robust = shares(context, split, known)
    worst, interval = least(robust)
    details: dict[str, Any] = {
        "class": worst.label,
        "name": name_of(examples, worst.label),
        "classes": class_rows(examples, clean, robust),
    }
    if missing := absent(examples):
        details["absent"] = missing
        warnings = [*warnings, _none_of(examples, missing)]
    if split == context.main:
        counts = confusion(context)
        details["confusion"] = [
            [label, to, int(counts[label, to])] for label, to in counts.nonzero().tolist()
        ]
        if examples.class_names:
            details["names"] = list(examples.class_names)
    return Measurement(
        name="accuracy.worst_class",
        split=split,
        value=worst.share,
        unit="fraction",
        n=len(examples),
        interval=interval,
        settings={"attacks": list(known.attacks), "level": LEVEL},
        details=details,
        warnings=warnings,
        doubts=doubts,
    )


def _none_of(examples: Examples, missing: list[int]) -> str:
    from robaudit.audit.classes import name_of

    listed = [
        str(label) if (name := name_of(examples, label)) == str(label) else f"{label} ({name})"
        for label in missing[:_LISTED]
    ]
    more = f" and {len(missing) - _LISTED} more" if len(missing) > _LISTED else ""
    kind = "class" if len(missing) == 1 else "classes"
    what = f"no {examples.split} example of {kind} {', '.join(listed)}{more}"
    return f"{what}: nothing is known of {'it' if len(missing) == 1 else 'them'}"
