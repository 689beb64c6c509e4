"""Auto-PGD in the weights, each in units of its own size."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from robaudit.attacks.apgd_loop import MOMENTUM, RISES_WANTED, checkpoints
from robaudit.attacks.objectives import cross_entropy
from robaudit.engine import TILE
from robaudit.engine.images import rows_of
from robaudit.flatness.losses import finite
from robaudit.flatness.weights import Weights

Logits = Callable[[Weights, Tensor], Tensor]


def highest_rise(
    logits: Logits,
    weights: Weights,
    x: Tensor,
    y: Tensor,
    norm: Literal["linf", "l2"],
    rho: float,
    steps: int,
    tick: Callable[[int], None],
) -> tuple[Tensor, Tensor]:
    """Losses ``(n,)`` at the weights, and where their mean was highest within the relative ball.

    Args:
        logits: of weights and images.
        x, y: the examples that share one perturbation.
        norm, rho: of ``u = d / |w|``.
        tick: called after each step with the steps made.

    Raises:
        NotMeasuredError: losses that are not finite.
    """
    u = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    old, step = u, 2 * rho
    first, gradient = _evaluated(logits, weights, u, x, y)
    best, best_u, best_gradient = first, u, gradient
    best_before, halved, rises = float(first.mean()), False, 0
    checks = checkpoints(norm, steps)
    for at in range(steps):
        z = _projected(_along(u, gradient, step, norm), norm, rho)
        if at:
            z = {
                name: u[name] + MOMENTUM * (z[name] - u[name]) + (1 - MOMENTUM) * (u[name] - o)
                for name, o in old.items()
            }
            z = _projected(z, norm, rho)
        old, u = u, z
        losses, gradient = _evaluated(logits, weights, u, x, y, last=at == steps - 1)
        if float(losses.mean()) > float(best.mean()):
            best, best_u, best_gradient, rises = losses, u, gradient, rises + 1
        if at in checks and at < steps - 1:
            highest = float(best.mean())
            stayed = not halved and best_before >= highest
            halved = rises <= RISES_WANTED * checks[at] or stayed
            best_before, rises = highest, 0
            if halved:
                step, u, gradient = step / 2, best_u, best_gradient
        tick(at + 1)
    return first, best


def _evaluated(
    logits: Logits, weights: Weights, u: Weights, x: Tensor, y: Tensor, last: bool = False
) -> tuple[Tensor, Weights]:
    """Losses ``(n,)`` float64 on the CPU, and the gradient of their sum in ``u`` but for the last.

    It adds up tiles of the examples, whose size depends on nothing but the examples.
    """
    some = next(iter(weights.values()))
    leaves = {name: (w + w.abs() * u[name]).requires_grad_(not last) for name, w in weights.items()}
    total = {name: torch.zeros_like(leaf) for name, leaf in leaves.items()}
    parts = []
    for start in range(0, len(x), TILE):
        rows = slice(start, start + TILE)
        images, labels = rows_of(x, rows, some.device), y[rows].to(some.device)
        with torch.set_grad_enabled(not last):
            loss = cross_entropy(logits(leaves, images).double(), labels)
            parts.append(loss.detach().cpu())
            if not last:
                pieces = torch.autograd.grad(
                    loss.sum(), list(leaves.values()), materialize_grads=True
                )
                for name, piece in zip(leaves, pieces, strict=True):
                    total[name] += piece
    scaled = {name: total[name] * weights[name].abs() for name in total}
    return finite(torch.cat(parts)), scaled


def _along(u: Weights, gradient: Weights, step: float, norm: str) -> Weights:
    if norm == "linf":
        return {name: u[name] + step * g.sign() for name, g in gradient.items()}
    size = _length(gradient)
    return {name: u[name] + (step / size) * g if size else u[name] for name, g in gradient.items()}


def _projected(u: Weights, norm: str, rho: float) -> Weights:
    if norm == "linf":
        return {name: moved.clamp(-rho, rho) for name, moved in u.items()}
    size = _length(u)
    return {name: moved * (rho / size) if size > rho else moved for name, moved in u.items()}


def _length(tensors: Weights) -> float:
    """The l2 norm of all entries together."""
    return float(torch.stack([t.double().square().sum() for t in tensors.values()]).sum().sqrt())
