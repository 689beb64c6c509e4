"""The restarts of PGD: with the network as it stands, or searched fast and judged by it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from robaudit.attacks.best_iterates import BestIterates
from robaudit.attacks.pgd_early_exit import until_broken
from robaudit.engine import Runner
from robaudit.engine.ascent import ascend_from
from robaudit.engine.projections import Ball
from robaudit.types import ThreatModel


@dataclass(frozen=True)
class Restarts:
    """How often examples are attacked, and how far.

    Attributes:
        start: rows ``(m,)`` and the restart to starting points ``(m, c, h, w)``.
        step, steps: length and number of the steps.
        early_exit: an example ends once it is misclassified.
        last_iterate: only the last iterate of a restart counts.
        tick: takes passes of single examples as they end.
    """

    start: Callable[[Tensor, int], Tensor]
    threat: ThreatModel
    step: float
    steps: int
    restarts: int
    early_exit: bool
    last_iterate: bool
    tick: Callable[[int], None]

    def run(self, judge: Runner, searcher: Runner | None, best: BestIterates) -> None:
        """Attack the examples of ``best`` and record what the judge confirms.

        With a searcher, the judge passes the best point of each restart and, where that is
        classified correctly, the misclassified one with the highest objective. What only the
        searcher sees misclassified, and where its objective did not rise at all, is attacked again
        with the judge.

        Args:
            judge: runs the network as it stands; all that is recorded is its.
            searcher: runs it in a faster way; ``None`` to search with the judge.
        """
        everything = torch.arange(len(best), device=judge.device)
        if searcher is None:
            self._plainly(judge, best, everything)
            return
        doubtful = torch.zeros_like(best.robust)
        for restart in range(self.restarts):
            rows = self._todo(best, everything)
            if len(rows) == 0:
                break
            found = best.blank(rows)
            self._once(searcher, found, rows, restart)
            self._confirm(judge, best, rows, found)
            doubtful[rows] = doubtful[rows] | ~found.robust
        again = torch.nonzero(best.robust & (doubtful | best.stuck))[:, 0]
        if len(again):
            some = best.taken(again)
            self._plainly(judge, some, again)
            best.put(again, some)

    def _plainly(self, runner: Runner, best: BestIterates, rows: Tensor) -> None:
        """All restarts with one runner; ``rows`` are those of the examples of ``best``."""
        everything = torch.arange(len(best), device=runner.device)
        for restart in range(self.restarts):
            if not self.early_exit:
                self._once(runner, best, rows, restart)
                continue
            todo = self._todo(best, everything)
            some = best.taken(todo)
            self._once(runner, some, rows[todo], restart)
            best.put(todo, some)

    def _todo(self, best: BestIterates, everything: Tensor) -> Tensor:
        """What a restart attacks; where it ends early, what stands, the most robust ones first."""
        if not self.early_exit:
            return everything
        rows = torch.nonzero(best.robust)[:, 0]
        return rows[best.best[rows].argsort(stable=True)]

    def _once(self, runner: Runner, best: BestIterates, rows: Tensor, restart: int) -> None:
        """One restart of the examples of ``best``."""
        how = self.threat, self.step, self.steps
        if self.early_exit:

            def begin(some: Tensor) -> Tensor:
                return self.start(rows[some], restart)

            until_broken(
                runner, best, begin, *how, lambda ended: self.tick(ended * (self.steps + 1))
            )
            return

        def record(adv: Tensor, values: Tensor, logits: Tensor, slope: Tensor | None) -> None:
            if self.last_iterate and slope is not None:
                best.note_rise(values)
            else:
                best.update(adv, values, logits)
            self.tick(len(rows))

        best.start_restart()
        first, ball = self.start(rows, restart), Ball(best.x, self.threat)
        ascend_from(first, best.y, runner, best.objective, ball, *how[1:], record)

    def _confirm(
        self, judge: Runner, best: BestIterates, rows: Tensor, found: BestIterates
    ) -> None:
        """Record what the judge says of the points that a search found."""
        found.check()
        own = best.taken(rows)
        own.judge(found.best_x, judge.logits(found.best_x), early_exit=self.early_exit)
        own.stuck = own.stuck & found.stuck
        elsewhere = torch.nonzero(own.robust & ~found.robust)[:, 0]
        if len(elsewhere) and not (self.early_exit or self.last_iterate):
            some, points = own.taken(elsewhere), found.broken_x[elsewhere]
            some.judge(points, judge.logits(points))
            own.put(elsewhere, some)
        best.put(rows, own)
