"""Robust accuracy under Square, which needs no gradients."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from robaudit.audit.probe import Attack
from robaudit.measures import measure

if TYPE_CHECKING:
    from torch import Tensor

    from robaudit.attacks import AttackResult
    from robaudit.audit.context import Context
    from robaudit.schema import Measurement
    from robaudit.types import Progress, ThreatModel


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
        ),
    )

    queries: int = 5000

    def run(self, context: Context) -> list[Measurement]:
        from robaudit import attacks
        from robaudit.audit.ensembles import confirmed, searcher

        examples = context.splits[context.main]

        def search(
            threat: ThreatModel, rows: Tensor, plain: bool, progress: Progress | None
        ) -> AttackResult:
            return attacks.square(
                searcher(context, plain),
                examples.x[rows],
                examples.y[rows],
                threat,
                queries=self.queries,
                seed=context.seed,
                index=examples.index[rows],
                progress=progress,
            )

        return confirmed(context, self, "Square", search)
