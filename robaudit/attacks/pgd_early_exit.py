"""PGD for verdicts only: an example leaves once it is broken, and another takes its place."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from robaudit.attacks.best_iterates import BestIterates
from robaudit.engine import Runner
from robaudit.engine.projections import Ball
from robaudit.types import ThreatModel

# Steps from one look at which examples are broken to the next. A GPU would have to be waited for.
_LOOK_CPU, _LOOK_GPU = 1, 4


def until_broken(
    runner: Runner,
    best: BestIterates,
    start: Callable[[Tensor], Tensor],
    threat: ThreatModel,
    step: float,
    steps: int,
    tick: Callable[[int], None],
) -> None:
    """One restart of the examples of ``best``, in their order, every pass filled up from them.

    The examples of a pass may be at different steps. The result of an example does not depend on
    the others in its pass, nor on the step after which it leaves, so the order is free: those
    likely to take longest should come first, so that few remain alone at the end.

    Args:
        start: positions ``(m,)`` to starting points.
        tick: takes the number of examples that have ended.
    """
    look = _LOOK_CPU if runner.device.type == "cpu" else _LOOK_GPU
    best.start_restart()
    begun, n = 0, len(best)
    # On the CPU: positions of the examples of a pass, and their steps so far.
    rows = ages = torch.zeros(0, dtype=torch.long)
    block, adv = best.taken(rows.to(runner.device)), best.x[:0]
    while begun < n or len(rows):
        room = min(runner.per_round - len(rows), n - begun)
        if room:
            fresh = torch.arange(begun, begun + room)
            begun += room
            rows, ages = torch.cat([rows, fresh]), torch.cat([ages, torch.zeros_like(fresh)])
            fresh = fresh.to(runner.device)
            block = block.joined(best.taken(fresh))
            adv = torch.cat([adv, start(fresh)])
        ball = Ball(block.x, threat)
        passes = min(look, steps + 1 - int(ages.max()))
        for _ in range(passes):
            values, gradient, logits = runner.gradient(block.objective, adv, block.y)
            block.update(adv, values, logits, early_exit=True)
            adv = ball.step(adv, gradient, step)
        ages = ages + passes
        stays = block.robust.cpu() & (ages <= steps)
        if bool(stays.all()):
            continue
        gone, left = (torch.nonzero(mask)[:, 0] for mask in (~stays, stays))
        at_gone, at_left = gone.to(runner.device), left.to(runner.device)
        best.put(rows[gone].to(runner.device), block.taken(at_gone))
        block, adv = block.taken(at_left), adv[at_left]
        rows, ages = rows[left], ages[left]
        tick(len(gone))
