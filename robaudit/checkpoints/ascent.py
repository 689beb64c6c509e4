"""PGD-10 on a candidate, to distinguish candidates in the audit's threat model, and its cost.

Steps of ``eps / 4`` from one random point of the ball, as in :func:`robaudit.attacks.pgd`, which
this room must not import. The logits are first divided by a scale that depends on the candidate:
with logits a hundred times too large, the cross-entropy and its gradient would be exactly zero,
which would look like robustness.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from robaudit.checkpoints.classifier import Classifier
from robaudit.engine import Runner, device_of, frozen
from robaudit.engine.ascent import ascend_from
from robaudit.engine.projections import Ball, random_start
from robaudit.types import Examples, ThreatModel

STEPS = 10
_STREAM = "identification"
_USUAL_MARGIN = 10.0
# About 600 images of PGD-10 in all for a ResNet-18 on 32x32: minutes on one core.
_OPERATIONS = 2e13
# A backward pass is two forward passes; one more judges the last step.
_PASSES = 3 * STEPS + 1
_MOST = 1024


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
        per image the highest cross-entropy on the way, from the clean image on, in float64; whether
        it was classified right at every step; and whether any gradient was not zero.
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

        def record(_: Tensor, __: Tensor, logits: Tensor, gradient: Tensor | None) -> None:
            nonlocal loss, stands, moved
            loss, stands = torch.maximum(loss, losses(logits, y)), stands & (logits.argmax(1) == y)
            if gradient is not None:
                moved |= (gradient != 0).flatten(1).any(1)
                tick()

        ball, step = Ball(x, threat), threat.eps / 4
        ascend_from(start, y, runner, objective, ball, step, STEPS, record)
    return loss.cpu(), stands.cpu(), moved.cpu()


def losses(logits: Tensor, y: Tensor) -> Tensor:
    """Cross-entropy per image, in float64: in float32 a confident network's is exactly zero."""
    return F.cross_entropy(logits.double(), y, reduction="none")


def _scale(logits: Tensor) -> float:
    """Divisor of the logits, at least 1: the median margin of the top two is then at most ten."""
    if logits.shape[1] < 2:
        return 1.0
    two = logits.double().topk(2, dim=1).values
    margin = float((two[:, 0] - two[:, 1]).median())
    return max(1.0, margin / _USUAL_MARGIN) if margin < float("inf") else 1.0


def images_for(models: Sequence[Classifier], examples: Examples) -> int:
    """How many images of PGD-10 on each of the models are affordable; the same on every machine."""
    return min(_MOST, int(1 / share(models, examples, 1)))


def share(models: Sequence[Classifier], examples: Examples, m: int) -> float:
    """Cost of attacking each model on ``m`` images, as a fraction of the affordable cost."""
    once = {id(model.network): model for model in models}
    operations = {key: _operations(model, examples) for key, model in once.items()}
    total = sum(operations[id(model.network)] for model in models)
    return m * _PASSES * total / _OPERATIONS


def _operations(model: Classifier, examples: Examples) -> int:
    counter = FlopCounterMode(display=False)
    try:
        with frozen(model), torch.no_grad(), counter:
            model(examples.x[:1].to(device_of(model)))
    except Exception:  # some networks cannot be counted, and that must not end anything
        return 2 * sum(p.numel() for p in model.parameters()) or 1
    return max(1, counter.get_total_flops())
