"""What PGD records of each example: the best iterate, the highest loss and the verdict."""

from __future__ import annotations

import copy
from typing import Self

import torch
from torch import Tensor

from robaudit.attacks.blocks import check_finite, put
from robaudit.attacks.driver import Chunk
from robaudit.attacks.objectives import OBJECTIVES, LossName, cross_entropy
from robaudit.engine.projections import per_image


class BestIterates:
    """The best iterates of some examples, on the device; the clean image is the first iterate.

    Recording is a fixed sequence of tensor operations: on a GPU nothing waits for their results.

    Attributes:
        robust: ``(n,)`` bool; classified correctly at every iterate so far.
        best, best_x: the highest objective and the iterate that has it; with ``early_exit`` the
            first misclassified iterate.
        best_loss: the highest cross-entropy.
        stuck: ``(n,)`` bool; no iterate had a higher objective than the start of its restart.
        broken_x: the misclassified iterate with the highest objective.
    """

    def __init__(self, part: Chunk, loss: LossName) -> None:
        self.objective = OBJECTIVES[loss]
        self.x, self.y = part.x, part.y
        self.best = self.objective(part.logits, part.y)
        self.best_loss = cross_entropy(part.logits, part.y)
        self.best_x = part.x.clone()
        self.robust = part.correct.clone()
        self.broken_x = part.x.clone()
        self.broken_best = torch.full_like(self.best, -torch.inf)
        self.at_start = torch.full_like(self.best, torch.nan)
        self.stuck = torch.ones_like(self.robust)
        self._finite = torch.ones_like(self.robust[:1])

    def __len__(self) -> int:
        return len(self.y)

    @property
    def _rows(self) -> dict[str, Tensor]:
        """The tensors with an entry for each example, by name."""
        return {
            name: value
            for name, value in vars(self).items()
            if isinstance(value, Tensor) and name != "_finite"
        }

    def taken(self, rows: Tensor) -> Self:
        """The record of the examples at positions ``(m,)``, which goes on by itself."""
        some = copy.copy(self)
        for name, whole in self._rows.items():
            setattr(some, name, whole[rows])
        some._finite = torch.ones_like(self._finite)
        return some

    def blank(self, rows: Tensor) -> Self:
        """As :meth:`taken`, with no iterate yet, not even the clean image."""
        some = self.taken(rows)
        for values in (some.best, some.best_loss, some.broken_best):
            values.fill_(-torch.inf)
        some.robust.fill_(True)
        some.stuck.fill_(True)
        return some

    def joined(self, other: Self) -> Self:
        """Both records in one."""
        both = copy.copy(self)
        theirs = other._rows
        for name, own in self._rows.items():
            setattr(both, name, torch.cat([own, theirs[name]]))
        both._finite = self._finite & other._finite
        return both

    def put(self, rows: Tensor, some: Self) -> None:
        """Replace the record of the examples at positions ``(m,)``, which must be distinct."""
        for name, values in some._rows.items():
            if name not in ("x", "y"):
                getattr(self, name)[rows] = values
        self._finite = self._finite & some._finite

    def start_restart(self) -> None:
        """The next iterate of each example is the start of a restart."""
        self.at_start = torch.full_like(self.best, torch.nan)

    def note_rise(self, values: Tensor) -> None:
        """Update only whether the objective rises above the start of the restart."""
        self.stuck = self.stuck & ~(values > self.at_start)
        self.at_start = torch.where(self.at_start.isnan(), values, self.at_start)

    def update(
        self, adv: Tensor, values: Tensor, logits: Tensor, *, early_exit: bool = False
    ) -> None:
        """Record one iterate of each example.

        Args:
            adv, values, logits: the iterates, their objective and their logits.
            early_exit: a misclassified iterate becomes the best one, whatever its objective, and
                later ones do not count.
        """
        if early_exit:
            values = torch.where(self.robust, values, -torch.inf)
        self.note_rise(values)
        self._record(adv, values, logits, early_exit)

    def judge(self, points: Tensor, logits: Tensor, *, early_exit: bool = False) -> None:
        """Record points that were searched with another form of the network, not in its order."""
        self._record(points, self.objective(logits, self.y), logits, early_exit)

    def _record(self, adv: Tensor, values: Tensor, logits: Tensor, early_exit: bool) -> None:
        self._finite = self._finite & logits.isfinite().all()
        losses = cross_entropy(logits, self.y)
        broken = logits.argmax(1) != self.y
        kept = values > self.best
        if early_exit:
            broken = broken & self.robust
            kept = (kept & self.robust) | broken
            losses = torch.where(self.robust, losses, self.best_loss)
        worse_break = broken & (values > self.broken_best)
        self.best = torch.where(kept, values, self.best)
        self.best_x = put(self.best_x, kept, adv)
        self.best_loss = torch.maximum(self.best_loss, losses)
        self.robust = self.robust & ~broken
        self.broken_best = torch.where(worse_break, values, self.broken_best)
        self.broken_x = put(self.broken_x, worse_break, adv)

    def check(self) -> None:
        """Raise if some logits were not finite.

        Raises:
            NotMeasuredError: some were not.
        """
        check_finite(torch.where(self._finite, 0.0, torch.nan))

    def fields(self) -> dict[str, Tensor]:
        """The fields of an :class:`robaudit.attacks.result.AttackResult`.

        Raises:
            NotMeasuredError: logits that were not finite.
        """
        self.check()
        return {
            "x": self.best_x,
            "loss": self.best_loss,
            "robust": self.robust,
            "stuck": self.stuck & self.robust,
            "reached": self.best,
            "broken_x": torch.where(per_image(self.x, ~self.robust), self.broken_x, self.best_x),
        }
