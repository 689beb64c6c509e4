"""How far the loss within the ball is from its linear approximation at the image."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from robaudit.attacks.blocks import check_finite, parts, rows_at_once
from robaudit.attacks.input_gradient import DUAL, finite_gradient
from robaudit.attacks.objectives import cross_entropy
from robaudit.brief import brief
from robaudit.engine import Runner
from robaudit.engine.arguments import checked
from robaudit.engine.images import rows_of
from robaudit.engine.projections import Ball, length, per_image, random_start
from robaudit.engine.runner import BatchSize
from robaudit.types import Progress, ThreatModel


@dataclass(frozen=True)
class LocalLinearity:
    """Errors of the linear approximation, in nats, on the CPU in float64.

    Attributes:
        error: ``(n,)`` the largest found; never above the largest there is.
        first_order: ``(n,)`` ``eps ||grad l(x)||_*``, the most by which the linear approximation
            itself changes in the ball without the box.
        forwards, backwards: passes, counted in images.
    """

    error: Tensor
    first_order: Tensor
    forwards: int
    backwards: int

    __repr__ = brief


@checked
def local_linearity(
    model: nn.Module | Runner,
    x: Tensor,
    y: Tensor,
    threat: ThreatModel,
    *,
    steps: int = 10,
    step_size: float | None = None,
    seed: int = 0,
    index: Tensor | None = None,
    batch_size: BatchSize = "auto",
    progress: Progress | None = None,
) -> LocalLinearity:
    """``max_d |l(x + d) - l(x) - d^T grad l(x)|`` over the ball, as far as PGD finds it.

    ``l`` is the cross-entropy, and ``x + d`` stays in ``[0, 1]``. Projected gradient ascent with
    the steps of :func:`robaudit.attacks.pgd` along the gradient ``sign(v) (grad l(x + d) - grad
    l(x))`` of ``|v|``, ``v`` being what stands between the bars: once from a random point of the
    ball and once from the point opposite to where that ended, as to second order ``v`` is the same
    on both sides. The largest value over all iterates counts. It is a lower bound: the largest
    error may be larger.

    Args:
        model: maps images in ``[0, 1]`` to logits ``(n, k)``, or a :class:`robaudit.engine.Runner`.
        x, y: images ``(n, c, h, w)`` in ``[0, 1]`` and labels ``(n,)`` from 0.
        threat: norm and radius of the ball.
        steps: gradient steps of each ascent.
        step_size: in units of the norm; ``eps / 4`` unless given.
        seed: of the random points.
        index: ``(n,)`` the examples' positions in their data set, on which their draws depend;
            ``0..n-1`` unless given.
        batch_size: images per pass on a GPU; no result depends on it.
        progress: called with the work done and the work in all.

    Returns:
        The error and the first-order rise of each example.

    Raises:
        NotMeasuredError: logits or gradients that are not finite.

    Source: Qin et al., "Adversarial robustness through local linearization", NeurIPS 2019,
    where it is the local linearity measure ``gamma(eps, x)``; the search is our own.

    >>> net = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    >>> found = local_linearity(
    ...     net, torch.rand(3, 1, 2, 2), torch.zeros(3).long(), ThreatModel("linf", 0.1)
    ... )
    >>> bool((found.error < found.first_order).all())
    True
    """
    index = torch.arange(len(x)) if index is None else index
    step = threat.eps / 4 if step_size is None else step_size
    errors, rises = [], []
    with Runner.of(model, batch_size) as runner:
        before = runner.forwards, runner.backwards
        for rows in parts(len(x), rows_at_once(runner, x)):
            images, labels = rows_of(x, rows, runner.device), y[rows].to(runner.device)
            loss, slope = finite_gradient(runner, cross_entropy, images, labels)
            ball = Ball(images, threat)
            at = random_start(images, index[rows].cpu(), threat, seed, 0, "linearity")
            worst = torch.zeros(len(images), dtype=torch.float64, device=runner.device)
            finite = torch.ones((), dtype=torch.bool, device=runner.device)
            for made in range(2 * (steps + 1)):
                last = made % (steps + 1) == steps
                if last:
                    logits = runner.logits(at)
                    values, gradient = cross_entropy(logits, labels), slope
                else:
                    values, gradient, logits = runner.gradient(cross_entropy, at, labels)
                finite = finite & logits.isfinite().all()  # read at the end: on a GPU that waits
                linear = ((at - images).double() * slope.double()).flatten(1).sum(1)
                apart = values.double() - loss.double() - linear
                worst = torch.maximum(worst, apart.abs())
                if last:
                    at = ball.project_(2 * images - at)
                else:
                    way = torch.where(apart < 0, -1.0, 1.0).to(gradient)
                    at = ball.step(at, per_image(gradient, way) * (gradient - slope), step)
                if progress is not None:
                    done = 2 * rows.start * (steps + 1) + len(images) * (made + 1)
                    progress(done, 2 * len(x) * (steps + 1))
            check_finite(torch.where(finite, worst, torch.nan))
            errors.append(worst.cpu())
            rises.append(threat.eps * length(slope.double(), DUAL[threat.norm]).cpu())
        passed = runner.forwards - before[0], runner.backwards - before[1]
    return LocalLinearity(torch.cat(errors), torch.cat(rises), *passed)
