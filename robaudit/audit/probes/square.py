"""Robust accuracy under Square, which needs no gradients."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from robaudit.audit.probe import Attack
from robaudit.measures import measure
from robaudit.schema import Measurement

if TYPE_CHECKING:
    from robaudit.audit.context import Context


@dataclass(frozen=True)
class Square(Attack):
    """Square, a random search that asks the network for logits alone."""

    name = "square"
    measures = (
        measure(
            "accuracy.square",
            "Robust accuracy, {attack}",
            place=60,
            attack="Square",
            stages=("clean", "square"),
            passes=5000,
            formula="share that Square left correct, from logits alone",
        ),
    )

    queries: int = 5000

    def run(self, context: Context) -> list[Measurement]:
        from robaudit import attacks
        from robaudit.audit.ensembles import confirmed

        return confirmed(
            context, self, "Square", lambda run: run.by(attacks.square, queries=self.queries)
        )
