"""Values of one computation with the gradient of another."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class SurrogateGradient(torch.autograd.Function):
    """Returns ``values``; passes the gradient to ``differentiable``, which has the same shape."""

    @staticmethod
    def forward(ctx: Any, differentiable: Tensor, values: Tensor) -> Tensor:
        return values.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None
