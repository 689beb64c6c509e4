"""Early-stopped PGD: friendly adversarial examples."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from robaudit.engine.logits import Forward

if TYPE_CHECKING:
    from robaudit.types import Images


class EarlyStop:
    """A network that remembers which examples it misclassified, and how often.

    An example whose iterate is misclassified takes ``more`` further steps from misclassified
    iterates and then stays where it is: with 0 it stops at the first one. Nothing is read back from
    the device, and stopped examples stay in the batch.

    Args:
        forward: images to logits.
        y: labels ``(n,)``, or targets ``(n, k)``, whose largest counts as the label.
        more: ``tau`` of the paper.

    Source: J. Zhang et al., "Attacks Which Do Not Kill Training Make Adversarial Learning
    Stronger", ICML 2020, Algorithm 1.
    """

    def __init__(self, forward: Forward, y: Tensor, more: int) -> None:
        self._forward, self._labels = forward, y if y.dim() == 1 else y.argmax(1)
        self._left = torch.full_like(self._labels, more)
        self._wrong = torch.zeros_like(self._labels, dtype=torch.bool)

    def __call__(self, x: Images) -> Tensor:
        logits = self._forward(x)
        self._wrong = logits.detach().argmax(1) != self._labels
        return logits

    def going(self) -> Tensor:
        """Which examples take the step from the images of the last call, ``(n,)``; counts it."""
        going = ~(self._wrong & (self._left <= 0))
        self._left = self._left - self._wrong.long()
        return going
