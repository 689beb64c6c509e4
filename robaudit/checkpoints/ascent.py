"""PGD-10 on a candidate: enough to tell candidates apart, in the audit's threat model.

Steps of ``eps / 4`` from one random point of the ball, as :func:`robaudit.attacks.pgd`, whose room
is above this one. The logits are first divided by a scale of the candidate's own, so that one whose
logits are a hundred times too large is attacked as well as any other: its cross-entropy is exactly
zero, and so is the gradient, which would look like robustness.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robaudit.engine import Runner, device_of, frozen
from robaudit.engine.ascent import ascent
from robaudit.engine.projections import Ball, random_start
from robaudit.types import ThreatModel

STEPS = 10
_STREAM = "identification"
_USUAL_MARGIN = 10.0


def attacked(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    index: Tensor,
    threat: ThreatModel,
    tick: Callable[[], None],
) -> tuple[Tensor, Tensor, Tensor]:
    """Attack images ``(m, c, h, w)`` once each.

    Args:
        tick: called after every step.

    Returns:
        for each image the highest cross-entropy met, the clean one's included, in float64;
        whether it was classified right throughout; and whether there was a gradient to follow.
    """
    runner = Runner(model, device_of(model))
    x, y = x.to(runner.device), y.to(runner.device)
    with frozen(model):
        logits = runner.logits(x)
        scale = _scale(logits)
        loss, stands = losses(logits, y), logits.argmax(1) == y
        moved = torch.zeros_like(stands)
        start = random_start(x, index, threat, 0, 0, _STREAM)

        def objective(values: Tensor, labels: Tensor) -> Tensor:
            return F.cross_entropy(values / scale, labels, reduction="none")

        ball, step = Ball(x, threat), threat.eps / 4
        for iterate in ascent(runner, objective, start, y, ball, step, STEPS):
            logits = iterate.logits
            loss, stands = torch.maximum(loss, losses(logits, y)), stands & (logits.argmax(1) == y)
            if iterate.gradient is not None:
                moved |= (iterate.gradient != 0).flatten(1).any(1)
                tick()
    return loss.cpu(), stands.cpu(), moved.cpu()


def losses(logits: Tensor, y: Tensor) -> Tensor:
    """Cross-entropy of each image, in float64: in float32 a sure network's is exactly zero."""
    return F.cross_entropy(logits.double(), y, reduction="none")


def _scale(logits: Tensor) -> float:
    """1, or what brings the usual margin between the two largest logits down to ten."""
    if logits.shape[1] < 2:
        return 1.0
    two = logits.double().topk(2, dim=1).values
    margin = float((two[:, 0] - two[:, 1]).median())
    return max(1.0, margin / _USUAL_MARGIN) if margin < float("inf") else 1.0
