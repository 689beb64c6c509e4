"""One restart of Auto-PGD on many rows: in l1 within larger radii first."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from robaudit.attacks.apgd_loop import ApgdSettings, Verdicts, run_apgd
from robaudit.attacks.driver import Chunk
from robaudit.attacks.targets import per_target
from robaudit.engine import Runner
from robaudit.engine.projections import Ball, random_start
from robaudit.engine.runner import PerImageObjective
from robaudit.types import Norm, ThreatModel


@dataclass(frozen=True)
class Restart:
    """Where a restart begins and how long it is.

    Attributes:
        streams: names of the random draws, one for each of an example's rows.
        restart: its number.
        samples: gradients averaged at each point.
        early_exit: drop all rows of an example soon after one of them is misclassified.
    """

    threat: ThreatModel
    objective: PerImageObjective
    steps: int
    seed: int
    restart: int
    streams: tuple[str, ...]
    samples: int = 1
    early_exit: bool = True


@dataclass(frozen=True)
class Climbed:
    """Outcomes by row: its example and target, the highest objective and the point that has it.

    Rows that were dropped early have no point.

    Attributes:
        rank: the position of the row's target among its example's.
        rose: the objective rose above the start.
        zero_gradient: the gradient was zero in every pixel at a start.
    """

    example: Tensor
    rank: Tensor
    best: Tensor
    best_x: Tensor
    rose: Tensor
    zero_gradient: Tensor


def climb(
    runner: Runner,
    part: Chunk,
    verdicts: Verdicts,
    attacked: Tensor,
    targets: Tensor | None,
    settings: Restart,
    tick: Callable[[float], None],
    chosen: Tensor | None = None,
) -> Climbed:
    """One restart on the examples ``attacked``, ``(m,)`` positions in the part, for their targets.

    Args:
        targets: ``(n, t)`` target classes of all examples of the part; ``None`` for an untargeted
            objective.
        tick: takes the share of the work that is done.
        chosen: ``(n, t)``, which of the targets are attacked; all unless given.
    """
    threat, steps = settings.threat, settings.steps
    stages = radii(threat.norm, threat.eps, steps)
    widest = replace(threat, eps=stages[0][0])
    clean, index = part.x[attacked], part.index[attacked]
    example, rank, labels = per_target(attacked, part.y, targets)
    starts = [
        random_start(clean, index, widest, settings.seed, settings.restart, name)
        for name in settings.streams
    ]
    start = torch.stack(starts, dim=1).flatten(0, 1)
    if chosen is not None:
        rows = torch.nonzero(chosen[attacked].flatten())[:, 0]
        example, rank, labels, start = example[rows], rank[rows], labels[rows], start[rows]
    x = part.x[example]
    rose = torch.zeros_like(example, dtype=torch.bool)
    zero_gradient = rose.clone()
    spent = 0
    for eps, count in stages:
        last = (eps, count) == stages[-1]
        within = replace(threat, eps=eps)
        start = Ball(x, within).project_(start) if spent else start
        own = ApgdSettings(
            within, settings.objective, count, settings.samples, settings.early_exit and last
        )
        # Points outside the ball do not count as breaks.
        judged = verdicts if last else Verdicts(part.x, part.correct)

        def told(step: int, spent: int = spent) -> None:
            tick((spent + step) / steps)

        found = run_apgd(runner, judged, x, start, labels, example, rank, own, told)
        start = found.best_x
        spent += count
        zero_gradient |= found.zero_gradient
        rose |= found.best > found.first
    return Climbed(example, rank, found.best, found.best_x, rose, zero_gradient)


def radii(norm: Norm, eps: float, steps: int) -> list[tuple[float, int]]:
    """Radii and their steps: for l1 three and two times ``eps`` first."""
    if norm != "l1":
        return [(eps, steps)]
    early = math.ceil(0.3 * steps)
    late = max(1, steps - 2 * early)
    return [(3 * eps, early), (2 * eps, early), (eps, late)]
