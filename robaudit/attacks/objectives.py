"""What an attack maximises: one value per example from logits ``(n, k)`` and labels ``(n,)``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

LossName = Literal["ce", "margin"]


def cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    """``-log softmax(z)_y``, shape ``(n,)``."""
    return F.cross_entropy(logits, y, reduction="none")


def margin(logits: Tensor, y: Tensor) -> Tensor:
    """``max_{i != y} z_i - z_y``, shape ``(n,)``: positive where the example is misclassified.

    Source: Carlini & Wagner, "Towards evaluating the robustness of neural networks", 2017, f_6.

    >>> margin(torch.tensor([[1.0, 3.0, 0.0]]), torch.tensor([0]))
    tensor([2.])
    """
    own = logits.gather(1, y[:, None])
    others = logits.scatter(1, y[:, None], -torch.inf)
    return others.amax(1) - own[:, 0]


OBJECTIVES: dict[LossName, Callable[[Tensor, Tensor], Tensor]] = {
    "ce": cross_entropy,
    "margin": margin,
}
