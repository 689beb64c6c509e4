"""Further training images, with labels that a classifier may have given them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from robaudit.types import Images, Labels


@dataclass(frozen=True)
class ExtraData:
    """Images and labels that fill a fixed part of every batch.

    An epoch keeps its number of steps, ``ceil(n / batch_size)`` for ``n`` examples of the training
    set: each step takes ``batch_size - m`` of a random order of them and ``m = round(share
    batch_size)`` of these, drawn with replacement. An epoch thus passes over ``1 - share`` of the
    training set.

    Attributes:
        x: images ``(e, c, h, w)``, on the device of training.
        y: labels ``(e,)``, there as well.
        share: of every batch.

    Source: Y. Carmon et al., "Unlabeled Data Improves Adversarial Robustness", NeurIPS 2019,
    section 3 (robust self-training; half of every batch).
    """

    x: Images
    y: Labels
    share: float = 0.5

    def count(self, batch_size: int) -> int:
        """``m``."""
        return round(self.share * batch_size)

    def batches(
        self, x: Images, y: Labels, batch_size: int, generator: torch.Generator
    ) -> Iterator[tuple[Images, Tensor]]:
        """The batches of an epoch on the training set ``(x, y)``."""
        steps, m = -(-len(x) // batch_size), self.count(batch_size)
        order = torch.randperm(len(x), generator=generator, device=x.device)
        drawn = torch.randint(len(self.x), (steps, m), generator=generator, device=x.device)
        for step, others in enumerate(drawn):
            rows = order[step * (batch_size - m) : (step + 1) * (batch_size - m)]
            yield torch.cat([x[rows], self.x[others]]), torch.cat([y[rows], self.y[others]])
