"""Adversarial weight perturbation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Awp:
    """Descend the loss at ``w + v`` instead of ``w``, with an adversarial perturbation ``v``.

    ``v_l = gamma ||w_l|| g_l / ||g_l||`` for every weight tensor of two dimensions or more, ``g``
    the gradient of the robust loss at ``w`` on the same adversarial images: one step of the inner
    maximisation ``max_{||v_l|| <= gamma ||w_l||} R(w + v)``. The step that follows is taken from
    ``w`` (:func:`~robaudit.training.moving.moved_weights`).

    Attributes:
        gamma: relative length; the paper has 0.01 for AT and 0.005 for TRADES.
        after: number of epochs without it at the beginning.

    Source: D. Wu et al., "Adversarial Weight Perturbation Helps Robust Generalization", NeurIPS
    2020, Eq. 8-10.
    """

    gamma: float = 0.01
    after: int = 0

    def adversary(self, model: nn.Module, loss: Callable[[], Tensor]) -> dict[str, Tensor]:
        """``v`` by parameter name, zero where the weight or the gradient is.

        Nothing is read from the device, whose queue would run empty. The model's buffers, such as a
        batch norm's running statistics, are restored.

        Args:
            model: the network.
            loss: computes the robust loss with the model's current weights.
        """
        weights = {
            name: parameter
            for name, parameter in model.named_parameters()
            if parameter.requires_grad and parameter.dim() > 1
        }
        kept = [(buffer, buffer.clone()) for buffer in model.buffers()]
        try:
            gradients = torch.autograd.grad(loss(), list(weights.values()), allow_unused=True)
        finally:
            for buffer, value in kept:
                buffer.copy_(value)
        return {
            name: gradient * (self.gamma * weight.detach().norm() / _length(gradient))
            for (name, weight), gradient in zip(weights.items(), gradients, strict=True)
            if gradient is not None
        }


def _length(gradient: Tensor) -> Tensor:
    found: Tensor = gradient.norm().clamp_min(torch.finfo(gradient.dtype).tiny)
    return found
