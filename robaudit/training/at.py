"""Adversarial training on PGD examples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from torch import Tensor
from torch.nn import functional as F

from robaudit.training.objective import Adversarial, Forward, Trace

if TYPE_CHECKING:
    from robaudit.types import Images, Labels


@dataclass(frozen=True)
class At(Adversarial):
    """``E[CE(f(x'), y)]`` with ``x'`` from PGD on the cross-entropy.

    Source: A. Madry et al., "Towards Deep Learning Models Resistant to Adversarial Attacks",
    ICLR 2018, Eq. 2.1.
    """

    trace: ClassVar[Trace] = "at"
    penalty: float = 0.0

    def loss(self, forward: Forward, x: Images, moved: Images, y: Labels) -> Tensor:
        """The mean cross-entropy at ``moved``."""
        return F.cross_entropy(forward(moved), y)
