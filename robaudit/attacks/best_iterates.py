"""What an ascent has met: of each example the best iterate, the worst loss and the verdict."""

from __future__ import annotations

import torch
from torch import Tensor

from robaudit.attacks.objectives import OBJECTIVES, LossName, cross_entropy
from robaudit.engine import Runner
from robaudit.errors import NotMeasuredError


class BestIterates:
    """The state of a chunk of examples on the device; the clean image is the first iterate.

    Attributes:
        robust: ``(n,)`` bool; right at every iterate so far.
        best, best_x: the highest objective and where it is; with ``first_break``, where the example
            was first misclassified.
        best_loss: the highest cross-entropy.
        stuck: ``(n,)`` bool; no iterate rose above the point where its restart began.
        broken_x: of the misclassified iterates the one of highest objective.
    """

    def __init__(self, runner: Runner, x: Tensor, y: Tensor, loss: LossName) -> None:
        self.x = x.to(runner.device)
        self.y = y.to(runner.device)
        self.objective = OBJECTIVES[loss]
        logits = runner.logits(self.x)
        self.best = self.objective(logits, self.y)
        self.best_loss = cross_entropy(logits, self.y)
        self.best_x = self.x.clone()
        self.correct = logits.argmax(1) == self.y
        self.robust = self.correct.clone()
        self.broken_x = self.x.clone()
        self.broken_best = torch.full_like(self.best, -torch.inf)
        self.began = torch.full_like(self.best, torch.nan)
        self.stuck = torch.ones_like(self.correct)
        _check(logits)

    def begin(self, rows: Tensor) -> None:
        """What is met next of these examples is where a restart begins."""
        self.began[rows] = torch.nan

    def rise(self, rows: Tensor, values: Tensor) -> None:
        """Note whether the objective of the examples rises above where the restart began."""
        began = self.began[rows]
        self.stuck[rows[values > began]] = False
        self.began[rows] = torch.where(began.isnan(), values, began)

    def meet(
        self, rows: Tensor, adv: Tensor, values: Tensor, logits: Tensor, *, first_break: bool
    ) -> None:
        """Take in iterates ``adv`` of the examples ``rows``, no two of one example.

        ``first_break`` keeps a misclassified iterate as the best, whatever its objective.
        """
        _check(logits)
        self.rise(rows, values)
        y = self.y[rows]
        broken = logits.argmax(1) != y
        better = values > self.best[rows]
        kept = better | broken if first_break else better
        to = rows[kept]
        self.best[to] = values[kept]
        self.best_x[to] = adv[kept]
        self.best_loss[rows] = torch.maximum(self.best_loss[rows], cross_entropy(logits, y))
        self.robust[rows[broken]] = False
        worse_break = broken & (values > self.broken_best[rows])
        at = rows[worse_break]
        self.broken_best[at] = values[worse_break]
        self.broken_x[at] = adv[worse_break]

    def stand_again(self, rows: Tensor) -> None:
        """Examples that were not broken after all."""
        self.robust[rows] = True
        self.broken_best[rows] = -torch.inf

    def piece(self) -> dict[str, Tensor]:
        """The rows of a result."""
        broken = (~self.robust).reshape(-1, *[1] * (self.x.dim() - 1))
        return {
            "x": self.best_x,
            "loss": self.best_loss,
            "robust": self.robust,
            "correct": self.correct,
            "stuck": self.stuck & self.robust,
            "reached": self.best,
            "broken_x": torch.where(broken, self.broken_x, self.best_x),
        }


def _check(values: Tensor) -> None:
    if not bool(values.isfinite().all()):
        raise NotMeasuredError(
            "the network's logits are not finite on some images",
            "Look for NaN or overflow in the weights; low precision can be a cause.",
        )
