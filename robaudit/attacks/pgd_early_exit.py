"""PGD for verdicts alone: an example leaves the pass once it is broken, and another takes over."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from robaudit.attacks.best_iterates import BestIterates
from robaudit.engine import Runner
from robaudit.engine.projections import ascend, project, random_start
from robaudit.types import ThreatModel


def break_all(
    judge: Runner,
    searcher: Runner,
    met: BestIterates,
    index: Tensor,
    threat: ThreatModel,
    step: float,
    steps: int,
    restarts: int,
    seed: int,
    start: Tensor | None,
    tick: Callable[[int], None],
) -> None:
    """Attack what stands, restart after restart; no break counts that ``judge`` does not confirm.

    Args:
        judge: runs the network itself.
        searcher: runs it in a faster way; those it misled are attacked again with ``judge``.
        tick: told how many runs of an example have ended.
    """

    def run(runner: Runner, restart: int, rows: Tensor) -> None:
        points = start if restart == 0 else None

        def begin(rows: Tensor) -> Tensor:
            x = met.x[rows]
            if points is not None:
                return project(points.to(x)[rows], x, threat)
            return random_start(x, index[rows.cpu()], threat, seed, restart)

        _run(runner, met, rows, begin, threat, step, steps, tick)

    first = met.robust.clone()
    for restart in range(restarts):
        run(searcher, restart, torch.nonzero(met.robust)[:, 0])
    broken = torch.nonzero(first & ~met.robust)[:, 0]
    if len(broken) == 0:
        return
    stands = judge.logits(met.best_x[broken]).argmax(1) == met.y[broken]
    misled = broken[stands]
    met.stand_again(misled)
    for restart in range(restarts):
        run(judge, restart, misled[met.robust[misled]])


def _run(
    runner: Runner,
    met: BestIterates,
    queue: Tensor,
    begin: Callable[[Tensor], Tensor],
    threat: ThreatModel,
    step: float,
    steps: int,
    tick: Callable[[int], None],
) -> None:
    """One restart of the examples in ``queue``, with as many in each pass as it holds.

    Each is at a step of its own. What an example meets does not depend on its neighbours in a pass,
    so it does not matter when its turn comes: those that are likely to stand longest go first, so
    that few are left alone at the end.
    """
    queue = queue[met.best[queue].argsort(stable=True)]
    rows, adv, at = queue[:0], met.x[:0], queue[:0]
    while len(queue) or len(rows):
        room = min(runner.batch - len(rows), len(queue))
        if room:
            fresh, queue = queue[:room], queue[room:]
            rows, at = torch.cat([rows, fresh]), torch.cat([at, torch.zeros_like(fresh)])
            adv = torch.cat([adv, begin(fresh)])
            met.begin(fresh)
        values, gradient, logits = runner.gradient(met.objective, adv, met.y[rows])
        met.meet(rows, adv, values, logits, first_break=True)
        stays = met.robust[rows] & (at < steps)
        tick(len(rows) - int(stays.sum()))
        rows, at = rows[stays], at[stays] + 1
        adv = project(ascend(adv[stays], gradient[stays], step, threat), met.x[rows], threat)
