"""TRADES: clean cross-entropy plus the divergence of clean and perturbed predictions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robaudit.training.objective import Adversarial, Forward, Trace, kl_divergence

if TYPE_CHECKING:
    from robaudit.types import Images, Labels


@dataclass(frozen=True)
class Trades(Adversarial):
    """``E[CE(f(x), y) + penalty KL(f(x) || f(x'))]`` with ``x'`` from PGD on the divergence.

    The ascent begins uniformly in the ball: at ``x' = x`` the divergence has no gradient. Gradients
    of the loss flow through both forward passes.

    Attributes:
        penalty: ``1 / lambda`` in the paper.

    Source: H. Zhang et al., "Theoretically Principled Trade-off between Robustness and Accuracy",
    ICML 2019, Eq. 5 and Algorithm 1.
    """

    trace: ClassVar[Trace] = "trades"
    penalty: float = 6.0

    def climbed(self, model: nn.Module, x: Images, y: Labels) -> Forward:
        """The divergence from the predictions at ``x``, which are held fixed."""
        with torch.no_grad():
            target = model(x)
        return lambda z: kl_divergence(target, model(z))

    def loss(self, forward: Forward, x: Images, moved: Images, y: Labels) -> Tensor:
        """Clean cross-entropy and the weighted divergence."""
        clean = forward(x)
        return F.cross_entropy(clean, y) + self.penalty * kl_divergence(
            clean, forward(moved)
        ) / len(x)
