"""PGD for verdicts only: an example leaves once it is broken, and another takes its place."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from robaudit.attacks.best_iterates import BestIterates
from robaudit.engine import Runner
from robaudit.engine.projections import Ball
from robaudit.types import ThreatModel


def pgd_early_exit(
    judge: Runner,
    searcher: Runner,
    best: BestIterates,
    start: Callable[[Tensor, int], Tensor],
    threat: ThreatModel,
    step: float,
    steps: int,
    restarts: int,
    tick: Callable[[int], None],
) -> None:
    """Attack the examples that are still robust, restart after restart; updates ``best``.

    Args:
        judge: runs the original network, which has to confirm each break.
        searcher: runs it in a faster way; examples whose break the original network does not
            confirm are attacked again with ``judge``.
        start: rows ``(m,)`` and the restart to starting points.
        tick: takes the number of restarts of single examples that have ended.
    """

    def run(runner: Runner, restart: int, rows: Tensor) -> None:
        _one_restart(
            runner, best, rows, lambda some: start(some, restart), threat, step, steps, tick
        )

    before = best.robust.clone()
    for restart in range(restarts):
        run(searcher, restart, torch.nonzero(best.robust)[:, 0])
    broken = torch.nonzero(before & ~best.robust)[:, 0]
    if len(broken) == 0:
        return
    unconfirmed = broken[judge.logits(best.best_x[broken]).argmax(1) == best.y[broken]]
    best.reopen(unconfirmed)
    for restart in range(restarts):
        run(judge, restart, unconfirmed[best.robust[unconfirmed]])


def _one_restart(
    runner: Runner,
    best: BestIterates,
    queue: Tensor,
    start: Callable[[Tensor], Tensor],
    threat: ThreatModel,
    step: float,
    steps: int,
    tick: Callable[[int], None],
) -> None:
    """One restart of the examples in ``queue``, every pass filled up from it.

    The examples of a pass may be at different steps. The result of an example does not depend on
    the others in its pass, so the order is free: those likely to take longest go first, so that
    few remain alone at the end.
    """
    queue = queue[best.best[queue].argsort(stable=True)]
    rows, adv, at = queue[:0], best.x[:0], queue[:0]
    while len(queue) or len(rows):
        room = min(runner.per_round - len(rows), len(queue))
        if room:
            fresh, queue = queue[:room], queue[room:]
            rows, at = torch.cat([rows, fresh]), torch.cat([at, torch.zeros_like(fresh)])
            adv = torch.cat([adv, start(fresh)])
            best.start_restart(fresh)
        values, gradient, logits = runner.gradient(best.objective, adv, best.y[rows])
        best.update(rows, adv, values, logits, early_exit=True)
        stays = best.robust[rows] & (at < steps)
        tick(len(rows) - int(stays.sum()))
        rows, at = rows[stays], at[stays] + 1
        adv = Ball(best.x[rows], threat).step(adv[stays], gradient[stays], step)
