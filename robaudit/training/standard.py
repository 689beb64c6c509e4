"""Standard training: the mean cross-entropy on clean images."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from robaudit.types import Images, Labels


def standard_loss(
    model: nn.Module, x: Images, y: Labels, generator: torch.Generator | None = None
) -> Tensor:
    """``E[CE(f(x), y)]``, a scalar.

    ``generator`` is not used; it is there so that all objectives are called alike.
    """
    return F.cross_entropy(model(x), y)
