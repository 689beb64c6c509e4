"""The terms that RAT's public code computes instead of the Taylor terms, for comparison."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from robaudit.errors import UsageError
from robaudit.training.objectives import Objective
from robaudit.training.trh import Passes

if TYPE_CHECKING:
    from robaudit.types import Labels, Logits


def last_layer_terms(
    objective: Objective, passes: Passes, y: Labels, eta: float, order: Literal[1, 2]
) -> Tensor:
    """``eta (D_1 - CE(f(x), y))`` and, with ``order`` 2, ``eta / 2 D_2`` on top of TRADES' loss.

    ``D_1`` and ``D_2`` are divergences of the predictions at ``x`` and ``x'`` from soft labels, the
    mean of both. The soft labels come from the batch's gradient of the cross-entropy in the last
    layer's weight, summed over each row: one number per class, ``s`` at ``x``, ``s'`` at ``x'``.
    ``D_1`` has :func:`soft_labels` of ``|s| - |s'|`` at ``x'`` and of ``|s'| - |s|`` at ``x``,
    ``D_2`` those of ``s'^2 - s^2`` at both. They are constants: no gradient flows through them.

    Args:
        objective: TRADES, whose clean cross-entropy then has the weight ``1 - eta``.
        passes: those of the objective's loss.
        y: labels ``(n,)``.

    Returns:
        A scalar.

    Raises:
        UsageError: the objective is not TRADES.

    Source: the public code of G. Jin et al., CVPR 2023; the paper's Eq. 8 is
    :class:`robaudit.training.taylor.Taylor`'s other kind.
    """
    if objective.trace != "trades":
        raise UsageError(
            "last-layer Taylor terms support TRADES only",
            'Write objective = "trades", or kind = "exact" under [taylor].',
        )
    (z, clean), (z_moved, moved) = passes.seen[0], passes.seen[-1]
    s, s_moved = _row_sums(z, clean, y), _row_sums(z_moved, moved, y)
    gap = s.abs() - s_moved.abs()
    first = _divergence(soft_labels(gap)[y], moved) + _divergence(soft_labels(-gap)[y], clean)
    total = eta * (first / 2 - F.cross_entropy(clean, y))
    if order == 2:
        target = soft_labels(s_moved**2 - s**2)[y]
        total = total + eta / 4 * (_divergence(target, moved) + _divergence(target, clean))
    return total


def soft_labels(gap: Tensor) -> Tensor:
    """Soft labels ``(k, k)``, one row per class, from a number per class, ``(k,)``.

    The class itself has ``2 / k``; the others share the rest in proportion to the difference of
    their number from the smallest one, or equally where all differences are zero.

    >>> soft_labels(torch.tensor([0.0, 1.0, 2.0, 3.0]))[0]
    tensor([0.5000, 0.0833, 0.1667, 0.2500])
    """
    k = len(gap)
    shares = (gap - gap.min()).repeat(k, 1).fill_diagonal_(0)
    total = shares.sum(1, keepdim=True)
    shares = torch.where(total > 0, shares / total, (1 - torch.eye(k).to(gap)) / (k - 1))
    return (1 - 2 / k) * shares + 2 / k * torch.eye(k).to(gap)


@torch.no_grad()
def _row_sums(features: Tensor, logits: Logits, y: Labels) -> Tensor:
    """The gradient of the mean cross-entropy in the last layer's weight, summed over features."""
    wrong = logits.softmax(1) - F.one_hot(y, logits.shape[1])
    return (wrong * features.sum(1, keepdim=True)).mean(0)


def _divergence(target: Tensor, logits: Logits) -> Tensor:
    return F.kl_div(logits.log_softmax(1), target, reduction="batchmean")
