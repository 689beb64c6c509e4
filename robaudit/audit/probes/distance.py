"""The distance to the nearest misclassified point that FAB finds."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from robaudit.audit.numbers import LEVEL
from robaudit.audit.probe import Attack
from robaudit.measures import measure
from robaudit.schema import Measurement

if TYPE_CHECKING:
    from robaudit.audit.context import Context


@dataclass(frozen=True)
class Distance(Attack):
    """Median over examples of the distance to the nearest misclassified point found.

    An upper bound: a nearer point may exist. Misclassified images have distance zero.
    """

    name = "distance"
    measures = (
        measure(
            "distance.median",
            "Median distance to an error",
            place=80,
            low=0.0,
            formula="median distance to the nearest misclassified point that FAB found; 0 for a "
            "misclassified image; an upper bound",
            error="interval between order statistics",
        ),
    )

    restarts: int = 1

    def run(self, context: Context) -> list[Measurement]:
        import torch

        from robaudit import attacks
        from robaudit.attacks.result import known
        from robaudit.attacks.verification import verify
        from robaudit.engine import frozen
        from robaudit.statistics import median_interval

        examples = context.splits[context.main]
        with context.watch(f"FAB on {len(examples)} {context.main} examples") as progress:
            with frozen(context.model):
                found = attacks.fab(
                    context.searcher(),
                    examples.x,
                    examples.y,
                    context.threat,
                    restarts=self.restarts,
                    seed=context.seed,
                    index=examples.index,
                    progress=progress,
                )
            nearest = known(found.nearest)
            judged = verify(context.model, examples.x, nearest, examples.y, context.threat)
        confirmed = judged.wrong & judged.in_box
        distances = torch.where(confirmed, judged.distance, torch.inf)
        context.keep(context.main, "distance", distances)
        middle, interval = median_interval(distances.sort().values.numpy(), LEVEL)
        common: dict[str, Any] = {
            "name": "distance.median",
            "split": context.main,
            "settings": {**asdict(self), "attack": "fab-t", "norm": context.threat.norm},
            "n": len(examples),
        }
        if middle is None:
            reason = "no misclassified point was found for half of the examples"
            return [Measurement(status="skipped", reason=reason, **common)]
        details = {
            "found": int(confirmed.sum()),
            "within_eps": int((distances <= context.threat.eps).sum()),
            "forwards": found.forwards,
            "backwards": found.backwards,
        }
        return [
            Measurement(
                value=middle,
                unit=context.threat.norm,
                interval=interval,
                details=details,
                **common,
            )
        ]
