"""Standard training: the mean cross-entropy on clean images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robaudit.training.objective import Forward, Objective, Trace

if TYPE_CHECKING:
    from robaudit.types import Images, Labels


@dataclass(frozen=True)
class Standard(Objective):
    """``E[CE(f(x), y)]``."""

    trace: ClassVar[Trace] = "at"
    penalty: float = 0.0

    def examples(
        self, model: nn.Module, x: Images, y: Labels, generator: torch.Generator | None = None
    ) -> Images:
        """The clean images themselves."""
        return x

    def loss(self, forward: Forward, x: Images, moved: Images, y: Labels) -> Tensor:
        """The mean cross-entropy at ``moved``."""
        return F.cross_entropy(forward(moved), y)
