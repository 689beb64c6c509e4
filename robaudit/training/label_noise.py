"""Wrong labels, the same ones in every epoch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from robaudit.engine import uniform_rows

if TYPE_CHECKING:
    from robaudit.types import Labels


def noisy_labels(y: Labels, index: Tensor, classes: int, share: float, seed: int) -> Labels:
    """Labels of which ``share`` are replaced by one of all classes, drawn uniformly.

    The drawn class is the right one for ``1 / classes`` of them: in expectation the targets are
    those of label smoothing by ``share``. Each example's draw depends on the seed and its index
    alone, not on the other examples.

    Args:
        y: labels ``(n,)``.
        index: ``(n,)`` the examples' positions in their data set.
        classes: number of classes.
        share: probability of a replacement.
        seed: of the draws.

    Source: D. Stutz et al., "Relating Adversarially Robust Generalization to Flat Minima", ICCV
    2021, sections 3.4 and 4.
    """
    drawn = uniform_rows((2,), index, seed, "label noise", device=y.device)
    # A uniform draw is below 1 by at least 2^-24, and the product may still round to the number.
    others = (drawn[:, 1] * classes).long().clamp_max(classes - 1)
    noisy: Tensor = torch.where(drawn[:, 0] < share, others, y)
    return noisy
