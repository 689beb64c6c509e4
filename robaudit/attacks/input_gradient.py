"""The loss's gradient in the image: its norm, and how it turns within the ball."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor, nn

from robaudit.attacks.blocks import check_finite, parts, rows_at_once
from robaudit.attacks.objectives import cross_entropy, rising_cross_entropy
from robaudit.engine import Runner
from robaudit.engine.arguments import checked
from robaudit.engine.images import rows_of
from robaudit.engine.projections import length, random_start
from robaudit.engine.runner import BatchSize, PerImageObjective
from robaudit.errors import NotMeasuredError
from robaudit.types import Norm, ThreatModel

DUAL: Final[dict[Norm, Norm]] = {"linf": "l1", "l2": "l2", "l1": "linf"}
"""The norm in which a gradient bounds what a perturbation of a given norm can do."""


def finite_gradient(
    runner: Runner, objective: PerImageObjective, x: Tensor, y: Tensor
) -> tuple[Tensor, Tensor]:
    """Objective ``(n,)`` and its gradient ``(n, c, h, w)``, as :meth:`Runner.exact_gradient`.

    Raises:
        NotMeasuredError: logits or gradients that are not finite.
    """
    values, gradient, logits = runner.exact_gradient(objective, x, y)
    check_finite(logits)
    bad = int((~gradient.isfinite()).flatten(1).any(1).sum())
    if bad:
        raise NotMeasuredError(f"the gradient in the image is not finite on {bad} images")
    return values, gradient


@checked
def input_gradient_norm(
    model: nn.Module | Runner,
    x: Tensor,
    y: Tensor,
    threat: ThreatModel,
    *,
    batch_size: BatchSize = "auto",
) -> Tensor:
    """``||grad_x CE(f(x), y)||_*`` of each image, in nats per unit of the threat model's norm.

    ``||.||_*`` is the dual norm: l1 for linf, l2 for l2, linf for l1. To first order
    ``eps ||grad||_*`` is the largest rise of the loss in the ball. It is not invariant: twice the
    logits have another norm.

    Args:
        model: maps images in ``[0, 1]`` to logits ``(n, k)``, or a :class:`robaudit.engine.Runner`.
        x, y: images ``(n, c, h, w)`` in ``[0, 1]`` and labels ``(n,)`` from 0.
        threat: its norm; the radius has no effect.
        batch_size: images per pass on a GPU; no result depends on it.

    Returns:
        ``(n,)`` float64 on the CPU.

    Raises:
        NotMeasuredError: logits or gradients that are not finite.

    Source: Drucker & LeCun, "Double backpropagation", 1992; with the dual norm Simon-Gabriel et
    al., "First-order adversarial vulnerability of neural networks and input dimension", ICML 2019.

    >>> net = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    >>> input_gradient_norm(
    ...     net, torch.rand(3, 1, 2, 2), torch.zeros(3).long(), ThreatModel("linf", 0.1)
    ... ).shape
    torch.Size([3])
    """
    found = []
    with Runner.of(model, batch_size) as runner:
        for rows in parts(len(x), rows_at_once(runner, x)):
            images = rows_of(x, rows, runner.device)
            _, gradient = finite_gradient(runner, cross_entropy, images, y[rows].to(runner.device))
            found.append(length(gradient.double(), DUAL[threat.norm]).cpu())
    return torch.cat(found)


@checked
def gradient_alignment(
    model: nn.Module | Runner,
    x: Tensor,
    y: Tensor,
    threat: ThreatModel,
    *,
    seed: int = 0,
    index: Tensor | None = None,
    batch_size: BatchSize = "auto",
) -> Tensor:
    """``cos(grad l(x), grad l(x + d))`` of each image, ``d`` one random point of the ball.

    ``l`` is the cross-entropy. ``d`` is uniform in linf and l2, in l1 the projection of normal
    noise, and ``x + d`` is clipped to ``[0, 1]``. One where the loss is linear in the ball, near
    zero where single-step attacks mislead.

    Args:
        model: maps images in ``[0, 1]`` to logits ``(n, k)``, or a :class:`robaudit.engine.Runner`.
        x, y: images ``(n, c, h, w)`` in ``[0, 1]`` and labels ``(n,)`` from 0.
        threat: norm and radius of the ball.
        seed: of the draws.
        index: ``(n,)`` the examples' positions in their data set, on which their draws depend;
            ``0..n-1`` unless given.
        batch_size: images per pass on a GPU; no result depends on it.

    Returns:
        ``(n,)`` float64 on the CPU; ``nan`` where one of the gradients is zero.

    Raises:
        NotMeasuredError: logits or gradients that are not finite.

    Source: Andriushchenko & Flammarion, "Understanding and improving fast adversarial training",
    NeurIPS 2020; like their code it leaves out images with a gradient of zero.

    >>> net = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    >>> cos = gradient_alignment(
    ...     net, torch.rand(3, 1, 2, 2), torch.zeros(3).long(), ThreatModel("linf", 0.1)
    ... )
    >>> bool((cos > 1 - 1e-6).all())
    True
    """
    index = torch.arange(len(x)) if index is None else index
    found = []
    with Runner.of(model, batch_size) as runner:
        for rows in parts(len(x), rows_at_once(runner, x)):
            images, labels = rows_of(x, rows, runner.device), y[rows].to(runner.device)
            moved = random_start(images, index[rows].cpu(), threat, seed, 0, "alignment")
            # Of the same direction as the cross-entropy's gradient, and not rounded to zero.
            here, there = (
                finite_gradient(runner, rising_cross_entropy, point, labels)[1].double().flatten(1)
                for point in (images, moved)
            )
            lengths = length(here, "l2") * length(there, "l2")
            cosine = ((here * there).sum(1) / lengths).clamp(-1, 1)
            found.append(torch.where(lengths > 0, cosine, torch.nan).cpu())
    return torch.cat(found)
