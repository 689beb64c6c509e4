"""Robust accuracy under the fast tier: APGD on cross-entropy, then on the nearest classes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from robaudit.audit.probe import Attack
from robaudit.measures import measure
from robaudit.schema import Measurement

if TYPE_CHECKING:
    from robaudit.audit.context import Context


@dataclass(frozen=True)
class Fast(Attack):
    """APGD-CE, then targeted APGD on the classes that are nearest; it has no settings."""

    name = "fast"
    measures = (
        measure(
            "accuracy.fast",
            "Robust accuracy, {attack}",
            place=40,
            attack="fast",
            attack_named="the fast tier",
            stages=("clean", "pgd", "fast"),
            passes=1000,
            formula="share that APGD on cross-entropy and the three nearest classes left correct",
        ),
    )

    def run(self, context: Context) -> list[Measurement]:
        from robaudit import attacks
        from robaudit.audit.ensembles import confirmed

        return confirmed(context, self, "fast tier", lambda run: run.by(attacks.fast))
