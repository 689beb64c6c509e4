"""The inner loop of Auto-PGD: one run from given starting points."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from robaudit.attacks.blocks import Block, any_broken, any_row, gathered, packed, put, repacked
from robaudit.engine import Runner
from robaudit.engine.projections import Ball, length, per_image
from robaudit.engine.runner import PerImageObjective
from robaudit.types import ThreatModel

MOMENTUM = 0.75
RISES_WANTED = 0.75
NEVER = 1 << 30
_RANKS = 1 << 20


@dataclass(frozen=True)
class ApgdSettings:
    """Settings of one run.

    Attributes:
        samples: gradients averaged at each point.
        early_exit: drop all rows of an example soon after one of them is misclassified.
    """

    threat: ThreatModel
    objective: PerImageObjective
    steps: int
    samples: int
    early_exit: bool


class Verdicts:
    """Which of some examples are still robust, and the points that broke the others."""

    def __init__(self, x: Tensor, robust: Tensor) -> None:
        self.found = x.clone()
        self.robust = robust.clone()

    def update(self, example: Tensor, rank: Tensor, when: Tensor, found: Tensor | None) -> None:
        """Keep each example's first break; of several in one step, that of the lowest rank."""
        rows = torch.nonzero(when < NEVER)[:, 0]
        own = example[rows]
        if found is not None and len(rows):
            at = torch.arange(len(rows), device=rows.device)
            order = (when[rows] * _RANKS + rank[rows]) * len(rows) + at
            none = torch.full_like(self.robust, torch.iinfo(order.dtype).max, dtype=order.dtype)
            first = none.scatter_reduce_(0, own, order, "amin")[own] % len(rows)
            self.found[own] = found[rows[first]]
        self.robust[own] = False


class _ApgdRows(Block):
    example: Tensor
    rank: Tensor
    row: Tensor
    labels: Tensor
    x: Tensor
    adv: Tensor
    old: Tensor
    gradient: Tensor
    best_x: Tensor
    best_gradient: Tensor
    found: Tensor
    when: Tensor
    first: Tensor
    best: Tensor
    best_before: Tensor
    previous: Tensor
    rises: Tensor
    halved: Tensor
    step: Tensor
    share: Tensor
    support: Tensor
    ball: Ball
    finite: Tensor


@dataclass
class ApgdRun:
    """Results of one run, by row: objective at the start, highest objective and its point."""

    first: Tensor
    best: Tensor
    best_x: Tensor
    zero_gradient: Tensor


def run_apgd(
    runner: Runner,
    verdicts: Verdicts,
    x: Tensor,
    start: Tensor,
    labels: Tensor,
    example: Tensor,
    rank: Tensor,
    settings: ApgdSettings,
    tick: Callable[[int], None],
) -> ApgdRun:
    """Run Auto-PGD on rows, each an image with perhaps a target class.

    Args:
        x, start: ``(n, c, h, w)`` clean images and starting points; ``start`` is overwritten.
        labels: ``(n,)``, or ``(n, 2)`` with the target class.
        example, rank: ``(n,)`` the example that a row belongs to, and which of its targets it has.
        tick: takes the number of steps done.

    Returns: results by row; rows that were dropped early have no ``best_x``.
    """
    n, device = len(x), runner.device
    nothing = torch.zeros(n, device=device)
    first_step = (1 if settings.threat.norm == "l1" else 2) * settings.threat.eps
    state = {
        "example": example,
        "rank": rank,
        "row": torch.arange(n, device=device),
        "labels": labels,
        "x": x,
        "adv": start,
        "when": torch.full((n,), NEVER, device=device),
        "rises": nothing,
        "halved": torch.ones(n, dtype=torch.bool, device=device),
        "step": torch.full((n,), first_step, device=device),
    }
    blocks = packed(_ApgdRows, runner.per_round, state)
    out = ApgdRun(nothing.clone(), nothing.clone(), start.clone(), nothing.bool())
    for block in blocks:
        _begin(runner, block, settings)
        real = block.row[: block.used]
        out.first[real] = block.first[: block.used]
        out.zero_gradient[real] = (length(block.gradient, "linf") == 0)[: block.used]
    checks = checkpoints(settings.threat.norm, settings.steps)
    for segment in _segments(settings.steps):
        blocks = _drop_broken(runner, blocks, verdicts, out, settings, at_end=False)
        if not blocks:
            return out
        for block in blocks:
            for at in segment:
                _step(block, settings, at)
                _evaluate(runner, block, settings, at + 1, last=at == settings.steps - 1)
                if at in checks:
                    _checkpoint(block, settings, checks[at])
        tick(segment.stop)
    _drop_broken(runner, blocks, verdicts, out, settings, at_end=True)
    return out


def _begin(runner: Runner, block: _ApgdRows, settings: ApgdSettings) -> None:
    block.ball = Ball(block.x, settings.threat)
    block.best_x = block.adv.clone()
    if settings.early_exit:
        block.found = block.adv.clone()
    block.old = block.adv
    if settings.threat.norm == "l1":
        pixels = block.x[0].numel()
        support = (block.adv != block.x).flatten(1).sum(1).float()
        block.share, block.support = support / pixels / 1.5, support
    block.best = torch.full_like(block.rises, -torch.inf)
    block.previous = block.best
    _evaluate(runner, block, settings, 0, last=False)
    block.first = block.best_before = block.previous
    block.rises = torch.zeros_like(block.rises)


def _evaluate(
    runner: Runner, block: _ApgdRows, settings: ApgdSettings, at: int, *, last: bool
) -> None:
    """Evaluate the current points and record the best ones; the last points need no gradient."""
    if last:
        logits = runner.logits(block.adv, block.used)
        values = settings.objective(logits, block.labels)
    else:
        values, block.gradient, logits = runner.gradient(
            settings.objective, block.adv, block.labels, block.used
        )
        for _ in range(settings.samples - 1):
            values, more, logits = runner.gradient(
                settings.objective, block.adv, block.labels, block.used
            )
            block.gradient = block.gradient + more
    finite = logits.isfinite().all(1) & values.isfinite()
    block.finite = block.finite & finite if at else finite
    y = block.labels if block.labels.dim() == 1 else block.labels[:, 0]
    fresh = (logits.argmax(1) != y) & (block.when == NEVER)
    if any_row(fresh):
        block.when = torch.where(fresh, at, block.when)
        if settings.early_exit:
            block.found = put(block.found, fresh, block.adv)
    better = values > block.best
    block.rises = block.rises + (values > block.previous)
    block.previous = values
    if at == 0:
        block.best, block.best_gradient = values, block.gradient.clone()
    elif any_row(better):
        block.best = torch.where(better, values, block.best)
        block.best_x = put(block.best_x, better, block.adv)
        if not last:
            block.best_gradient = put(block.best_gradient, better, block.gradient)


def _step(block: _ApgdRows, settings: ApgdSettings, at: int) -> None:
    """The next points; the memory of ``old`` is reused for the momentum term."""
    step = per_image(block.adv, block.step)
    if settings.threat.norm == "l1":
        block.old, block.adv = block.adv, block.ball.project_(_sparse_step(block, step))
        return
    if settings.threat.norm == "linf":
        moved = block.gradient.sign().mul_(step)
    else:
        steepness = length(block.gradient, "l2").clamp_min_(1e-12)
        moved = block.gradient * (step / per_image(step, steepness))
    moved = block.ball.project_(moved.add_(block.adv))
    if at > 0:
        # adv + m (moved - adv) + (1 - m)(adv - old), m the momentum
        momentum = block.old.sub_(block.adv).mul_(MOMENTUM - 1)
        moved.sub_(block.adv).mul_(MOMENTUM).add_(momentum).add_(block.adv)
        moved = block.ball.project_(moved)
    block.old, block.adv = block.adv, moved


def _sparse_step(block: _ApgdRows, step: Tensor) -> Tensor:
    flat = block.gradient.flatten(1)
    size = flat.abs()
    pixels = size.shape[1]
    cut = ((1 - block.share) * pixels).clamp(0, pixels - 1).long()
    least = size.sort(dim=1).values.gather(1, cut[:, None])
    signs = torch.where(size >= least, flat.sign(), 0)
    signs = signs / (signs.abs().sum(1, keepdim=True) + 1e-10)
    return block.adv + step * signs.view_as(block.adv)


def _checkpoint(block: _ApgdRows, settings: ApgdSettings, passed: int) -> None:
    """Shorten the steps of rows that rose too seldom, and return them to their best points."""
    if settings.threat.norm == "l1":
        support = (block.best_x != block.x).flatten(1).sum(1).float()
        back = support < 0.95 * block.support
        block.share = support / block.x[0].numel() / 1.5
        shorter = (block.step / 1.5).clamp(settings.threat.eps / 10, settings.threat.eps)
        block.step = torch.where(back, settings.threat.eps, shorter)
        block.support = support
    else:
        stayed = ~block.halved & (block.best_before >= block.best)
        back = (block.rises <= RISES_WANTED * passed) | stayed
        block.halved, block.best_before = back, block.best
        block.step = torch.where(back, block.step / 2, block.step)
    block.rises = torch.zeros_like(block.rises)
    block.adv = put(block.adv, back, block.best_x)
    block.gradient = put(block.gradient, back, block.best_gradient)


def _drop_broken(
    runner: Runner,
    blocks: list[_ApgdRows],
    verdicts: Verdicts,
    out: ApgdRun,
    settings: ApgdSettings,
    *,
    at_end: bool,
) -> list[_ApgdRows]:
    """Update the verdicts and drop the rows of broken examples."""
    when = gathered(blocks, "when")
    broke = any_broken(when < NEVER, [block.finite for block in blocks])
    if not at_end and not (settings.early_exit and broke):
        return blocks
    row = gathered(blocks, "row")
    out.best[row] = gathered(blocks, "best")
    example = gathered(blocks, "example")
    found = gathered(blocks, "found") if settings.early_exit else None
    verdicts.update(example, gathered(blocks, "rank"), when, found)
    if at_end:
        out.best_x[row] = gathered(blocks, "best_x")
        return []
    kept = repacked(blocks, verdicts.robust[example], runner.per_round)
    for block in kept:
        block.ball = Ball(block.x, settings.threat)
    return kept


def checkpoints(norm: str, steps: int) -> dict[int, int]:
    """The steps after which step sizes are checked, with how many steps each check covers."""
    if norm == "l1":
        every = max(int(0.04 * steps), 1)
        return dict.fromkeys(range(every - 1, steps, every), every)
    wait, least, less = (max(int(share * steps), 1) for share in (0.22, 0.06, 0.03))
    found, at = {}, wait - 1
    while at < steps:
        found[at] = wait
        wait = max(wait - less, least)
        at += wait
    return found


def _segments(steps: int) -> Iterator[range]:
    """Ranges of steps after which broken examples are dropped: short at first, when most break."""
    start = 0
    while start < steps:
        stop = min(steps, start + (1 if start < 3 else 2 if start < 9 else 5))
        yield range(start, stop)
        start = stop
