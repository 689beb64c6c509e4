"""What PGD records of each example: the best iterate, the highest loss and the verdict."""

from __future__ import annotations

import torch
from torch import Tensor

from robaudit.attacks.blocks import check_finite
from robaudit.attacks.driver import Chunk
from robaudit.attacks.objectives import OBJECTIVES, LossName, cross_entropy
from robaudit.engine.projections import per_image


class BestIterates:
    """The best iterates of some examples, on the device; the clean image is the first iterate.

    Attributes:
        robust: ``(n,)`` bool; classified correctly at every iterate so far.
        best, best_x: the highest objective and the iterate that has it; with ``early_exit`` the
            first misclassified iterate.
        best_loss: the highest cross-entropy.
        stuck: ``(n,)`` bool; no iterate had a higher objective than the start of its restart.
        broken_x: the misclassified iterate with the highest objective.
    """

    def __init__(self, part: Chunk, loss: LossName) -> None:
        self.x, self.y = part.x, part.y
        self.objective = OBJECTIVES[loss]
        self.best = self.objective(part.logits, part.y)
        self.best_loss = cross_entropy(part.logits, part.y)
        self.best_x = part.x.clone()
        self.robust = part.correct.clone()
        self.broken_x = part.x.clone()
        self.broken_best = torch.full_like(self.best, -torch.inf)
        self.at_start = torch.full_like(self.best, torch.nan)
        self.stuck = torch.ones_like(self.robust)

    def start_restart(self, rows: Tensor) -> None:
        """The next iterate of each of these examples is the start of a restart."""
        self.at_start[rows] = torch.nan

    def note_rise(self, rows: Tensor, values: Tensor) -> None:
        """Update only whether the objective rises above the start of the restart."""
        at_start = self.at_start[rows]
        self.stuck[rows[values > at_start]] = False
        self.at_start[rows] = torch.where(at_start.isnan(), values, at_start)

    def update(
        self, rows: Tensor, adv: Tensor, values: Tensor, logits: Tensor, *, early_exit: bool
    ) -> None:
        """Record one iterate of each of the examples ``rows``, which must be distinct.

        Args:
            adv, values, logits: the iterates, their objective and their logits.
            early_exit: a misclassified iterate becomes the best one, whatever its objective.
        """
        check_finite(logits)
        self.note_rise(rows, values)
        y = self.y[rows]
        broken = logits.argmax(1) != y
        better = values > self.best[rows]
        kept = better | broken if early_exit else better
        to = rows[kept]
        self.best[to] = values[kept]
        self.best_x[to] = adv[kept]
        self.best_loss[rows] = torch.maximum(self.best_loss[rows], cross_entropy(logits, y))
        self.robust[rows[broken]] = False
        worse_break = broken & (values > self.broken_best[rows])
        at = rows[worse_break]
        self.broken_best[at] = values[worse_break]
        self.broken_x[at] = adv[worse_break]

    def reopen(self, rows: Tensor) -> None:
        """Take back the breaks of these examples, which were not confirmed."""
        self.robust[rows] = True
        self.broken_best[rows] = -torch.inf

    def fields(self) -> dict[str, Tensor]:
        """The fields of an :class:`robaudit.attacks.result.AttackResult`."""
        return {
            "x": self.best_x,
            "loss": self.best_loss,
            "robust": self.robust,
            "stuck": self.stuck & self.robust,
            "reached": self.best,
            "broken_x": torch.where(per_image(self.x, ~self.robust), self.broken_x, self.best_x),
        }
