"""Adversarial logit pairing, in the form the TrH paper regularises."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from torch import Tensor
from torch.nn import functional as F

from robaudit.training.objective import Adversarial, Forward, Trace

if TYPE_CHECKING:
    from robaudit.types import Images, Labels


@dataclass(frozen=True)
class Alp(Adversarial):
    """``E[CE(f(x'), y) + penalty |p - p'|^2]`` with ``x'`` from PGD on the cross-entropy.

    ``p``, ``p'`` are the softmax at ``x`` and ``x'``; the method's first paper pairs the logits.

    Source: Z. Wang et al., "Improving robust generalization by direct PAC-Bayesian bound
    minimization", CVPR 2023, appendix G.1; H. Kannan et al., "Adversarial Logit Pairing", 2018.
    """

    trace: ClassVar[Trace] = "alp"
    penalty: float = 1.0

    def loss(self, forward: Forward, x: Images, moved: Images, y: Labels) -> Tensor:
        """Cross-entropy at ``moved`` and the weighted squared distance of the softmaxes."""
        clean, bent = forward(x), forward(moved)
        distance = (clean.softmax(1) - bent.softmax(1)).square().sum(1)
        return F.cross_entropy(bent, y) + self.penalty * distance.mean()
