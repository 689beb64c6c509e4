"""What an attack maximises: one value per example from logits ``(n, k)`` and labels.

Untargeted objectives take labels ``(n,)``; targeted ones take ``(n, 2)``, label and target class.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

LossName = Literal["ce", "margin"]
TargetableLoss = Literal["ce", "margin", "dlr"]

# Keeps a quotient finite where logits coincide.
_TINY = 1e-12

# Where the cross-entropy is smaller, float32 has few digits left of how it changes.
_FLAT = 1e-3
_START, _SLOPE = math.log(math.expm1(_FLAT)), -math.expm1(-_FLAT)


def cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    """``-log softmax(z)_y``, shape ``(n,)``."""
    return F.cross_entropy(logits, y, reduction="none")


def rising_cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    """A function ``(n,)`` that increases with the cross-entropy ``L`` and does not saturate.

    ``L`` where that is at least ``t = 1e-3``; below, ``t + s (m - m_t)`` with ``m = log(e^L - 1) =
    logsumexp_{i != y} z_i - z_y``, ``s = dL/dm`` and ``m_t`` at ``t``. In float32 ``L`` is zero
    from a margin of about 17 on, and its gradient from 104; ``m`` keeps its precision, and its
    gradient has the same direction, so signs and normalised gradients are those of ``L``.

    >>> z = torch.tensor([[200.0, 0.0, 0.0]])
    >>> rising_cross_entropy(z, torch.tensor([0])) < rising_cross_entropy(z / 2, torch.tensor([0]))
    tensor([True])
    """
    loss = cross_entropy(logits, y)
    own = logits.gather(1, y[:, None])[:, 0]
    beyond = logits.scatter(1, y[:, None], -torch.inf).logsumexp(1) - own
    return torch.where(loss < _FLAT, _FLAT + _SLOPE * (beyond - _START), loss)


def as_cross_entropy(values: Tensor) -> Tensor:
    """The cross-entropy at values of :func:`rising_cross_entropy`."""
    flat = F.softplus(_START + (values - _FLAT) / _SLOPE)
    return torch.where(values < _FLAT, flat, values)


def margin(logits: Tensor, y: Tensor) -> Tensor:
    """``max_{i != y} z_i - z_y``, shape ``(n,)``: positive where the example is misclassified.

    Source: Carlini & Wagner, "Towards evaluating the robustness of neural networks", 2017, f_6.

    >>> margin(torch.tensor([[1.0, 3.0, 0.0]]), torch.tensor([0]))
    tensor([2.])
    """
    own = logits.gather(1, y[:, None])
    others = logits.scatter(1, y[:, None], -torch.inf)
    return others.amax(1) - own[:, 0]


def dlr(logits: Tensor, y: Tensor) -> Tensor:
    """``(max_{i != y} z_i - z_y) / (z_(1) - z_(3))``, shape ``(n,)``; three classes at least.

    ``z_(i)`` is the i-th largest logit: neither a shift nor a scale of the logits changes it.
    Source: Croce & Hein, "Reliable evaluation of adversarial robustness with an ensemble of
    diverse parameter-free attacks", ICML 2020, Eq. 6.
    """
    largest = logits.topk(3, dim=1).values
    return margin(logits, y) / (largest[:, 0] - largest[:, 2] + _TINY)


def targeted_margin(logits: Tensor, labels: Tensor) -> Tensor:
    """``z_t - z_y``, shape ``(n,)``."""
    own_and_target = logits.gather(1, labels)
    return own_and_target[:, 1] - own_and_target[:, 0]


def targeted_dlr(logits: Tensor, labels: Tensor) -> Tensor:
    """``(z_t - z_y) / (z_(1) - (z_(3) + z_(4)) / 2)``, shape ``(n,)``; four classes at least.

    Source: as :func:`dlr`, Eq. 7.
    """
    largest = logits.topk(4, dim=1).values
    spread = largest[:, 0] - 0.5 * (largest[:, 2] + largest[:, 3])
    return targeted_margin(logits, labels) / (spread + _TINY)


def targeted_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """``log softmax(z)_t``, shape ``(n,)``."""
    return -F.cross_entropy(logits, labels[:, 1], reduction="none")


OBJECTIVES: dict[LossName, Callable[[Tensor, Tensor], Tensor]] = {
    "ce": rising_cross_entropy,
    "margin": margin,
}
UNTARGETED: dict[TargetableLoss, Callable[[Tensor, Tensor], Tensor]] = {
    "ce": rising_cross_entropy,
    "margin": margin,
    "dlr": dlr,
}
TARGETED: dict[TargetableLoss, Callable[[Tensor, Tensor], Tensor]] = {
    "ce": targeted_cross_entropy,
    "margin": targeted_margin,
    "dlr": targeted_dlr,
}
