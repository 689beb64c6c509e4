"""Which classes a targeted attack tries, and in which order."""

from __future__ import annotations

import torch
from torch import Tensor

from robaudit.attacks.blocks import filled, parts
from robaudit.attacks.objectives import targeted_margin
from robaudit.engine import Runner
from robaudit.engine.projections import length
from robaudit.types import DUALS, Norm


def by_confidence(logits: Tensor, y: Tensor, count: int) -> Tensor:
    """The ``count`` largest logits but the label's, largest first, ``(n, count)``."""
    others = logits.scatter(1, y[:, None], -torch.inf)
    return others.topk(min(count, logits.shape[1] - 1), dim=1).indices


def per_target(
    examples: Tensor, y: Tensor, targets: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """One row for each of the examples and each of its targets.

    Args:
        examples: ``(m,)`` positions in ``y``.
        y, targets: ``(n,)`` labels and ``(n, t)`` target classes; ``None`` for an untargeted loss.

    Returns: of each row the example, the position of its target in ``targets``, and the labels that
        an objective takes: ``(m t,)``, or ``(m t, 2)`` with the target class.
    """
    count = 1 if targets is None else targets.shape[1]
    rank = torch.arange(count, device=y.device).repeat(len(examples))
    rows = examples.repeat_interleave(count)
    if targets is None:
        return rows, rank, y[rows]
    return rows, rank, torch.stack([y[rows], targets[rows, rank]], dim=1)


def by_malt(
    runner: Runner,
    x: Tensor,
    y: Tensor,
    logits: Tensor,
    count: int,
    *,
    norm: Norm,
    candidates: int,
) -> Tensor:
    """The classes whose linearised decision boundary is nearest, nearest first, ``(n, count)``.

    Sorted by ``(z_y - z_t) / ||grad(z_y - z_t)||`` in the dual norm, over the ``candidates``
    largest logits.

    Source: Melamed, Yehudai & Shamir, "MALT powers up adversarial attacks", NeurIPS 2024, Alg. 1.
    """
    tried = by_confidence(logits, y, candidates)
    distances = torch.empty(tried.shape, device=runner.device)
    for part in parts(len(x), runner.per_round):
        images, own, used = filled(x[part]), filled(y[part]), part.stop - part.start
        for rank, targets in enumerate(filled(tried[part]).unbind(1)):
            labels = torch.stack([own, targets], dim=1)
            gap, gradient, _ = runner.gradient(targeted_margin, images, labels, used)
            slope = length(gradient, DUALS[norm])
            # Without a gradient the boundary is infinitely far away.
            distance = torch.where(slope > 0, -gap / slope, torch.inf)
            distances[part, rank] = distance[:used]
    order = distances.argsort(dim=1, stable=True)[:, :count]
    return tried.gather(1, order)
