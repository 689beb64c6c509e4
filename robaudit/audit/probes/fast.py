"""Robust accuracy under the fast tier: short runs of Auto-PGD, then random patches."""

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
    """Short runs of APGD on the nearest classes, then random patches; it has no settings."""

    name = "fast"
    measures = (
        measure(
            "accuracy.fast",
            "Robust accuracy, {attack}",
            place=40,
            attack="fast",
            attack_named="the fast tier",
            stages=("clean", "pgd", "fast"),
            passes=1500,
            formula="share that short runs of APGD on the nearest classes, and in linf random "
            "patches from where those ended, left correct",
        ),
    )

    def run(self, context: Context) -> list[Measurement]:
        from robaudit import attacks
        from robaudit.audit.ensembles import confirmed

        return confirmed(context, self, "fast tier", lambda run: run.by(attacks.fast))
