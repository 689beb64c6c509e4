"""MART: adversarial training that looks more at what is misclassified."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from robaudit.training.objective import Adversarial, Forward, Trace, divergence_terms

if TYPE_CHECKING:
    from robaudit.types import Images, Labels, Logits


@dataclass(frozen=True)
class Mart(Adversarial):
    """``E[BCE(p', y) + penalty KL(p || p') (1 - p_y)]`` with ``x'`` from PGD on the cross-entropy.

    ``BCE(p', y) = -log p'_y - log(1 - max_{c != y} p'_c)``; ``p``, ``p'`` are the softmax at ``x``
    and ``x'``. Gradients flow through both, the factor ``1 - p_y`` included.

    Source: Y. Wang et al., "Improving Adversarial Robustness Requires Revisiting Misclassified
    Examples", ICLR 2020, Eq. 11.
    """

    trace: ClassVar[Trace] = "mart"
    penalty: float = 6.0

    def loss(self, forward: Forward, x: Images, moved: Images, y: Labels) -> Tensor:
        """Boosted cross-entropy and the weighted divergence."""
        clean, bent = forward(x), forward(moved)
        doubt = 1 - clean.softmax(1).gather(1, y[:, None])[:, 0]
        weighted = divergence_terms(clean, bent).sum(1) * doubt
        return (boosted_cross_entropy(bent, y) + self.penalty * weighted).mean()


def boosted_cross_entropy(logits: Logits, y: Labels) -> Tensor:
    """``-log p_y - log(1 - max_{c != y} p_c)`` per example, ``(n,)``.

    One minus the rival's probability is taken as the sum of all others, so that it never rounds
    to zero.
    """
    own = y[:, None]
    rival = logits.detach().scatter(1, own, -torch.inf).argmax(1, keepdim=True)
    log_all = logits.logsumexp(1)
    log_others = logits.scatter(1, rival, -torch.inf).logsumexp(1)
    return (log_all - logits.gather(1, own)[:, 0]) + (log_all - log_others)
