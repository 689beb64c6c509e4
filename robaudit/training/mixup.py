"""Mixup: convex combinations of images and of their labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

if TYPE_CHECKING:
    from robaudit.types import Images, Labels


@dataclass(frozen=True)
class Mixup:
    """``s x_i + (1 - s) x_j`` with the target ``s e_{y_i} + (1 - s) e_{y_j}``.

    ``j`` is a random permutation of the batch; the batch shares one ``s ~ Beta(alpha, alpha)``.
    Adversarial examples of mixed images ascend the loss with mixed targets, as in the WCI paper's
    source, L. Rice et al., ICML 2020.

    Attributes:
        alpha: of the beta distribution; 1 is uniform, and near 0 images are hardly mixed.

    Source: H. Zhang et al., "mixup: Beyond Empirical Risk Minimization", ICLR 2018.
    """

    alpha: float

    def share(self, seed: int) -> float:
        """``s``."""
        return float(np.random.default_rng(seed).beta(self.alpha, self.alpha))

    def __call__(
        self, x: Images, y: Labels, classes: int, seed: int, generator: torch.Generator | None
    ) -> tuple[Images, Tensor]:
        """Mixed images and targets ``(n, classes)``.

        Args:
            x, y: images and labels ``(n,)`` of the batch.
            classes: of the network.
            seed: of ``s``.
            generator: of the permutation, on the device of ``x``.
        """
        share = self.share(seed)
        other = torch.randperm(len(x), generator=generator, device=x.device)
        targets = F.one_hot(y, classes).to(x.dtype)
        return (
            share * x + (1 - share) * x[other],
            share * targets + (1 - share) * targets[other],
        )
