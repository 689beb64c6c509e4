"""A cross-check of attacks with gradients by a few queries of Square, which needs none."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from robaudit.attacks.objectives import OBJECTIVES, LossName
from robaudit.attacks.square import search
from robaudit.engine import TILE, Runner
from robaudit.types import ThreatModel

# The check's share of the attack's cost, and the fewest and the most queries per image.
_SHARE = 0.1
_FEWEST, _MOST = 4, 100
# Relative change of an objective by rounding.
_ROUNDING = 1e-4


@dataclass(frozen=True)
class SquareCheck:
    """Outcomes of the check, ``(m,)`` bool.

    Attributes:
        broke: images that Square broke and the attack did not.
        ahead: those, and images where Square reached a higher objective than the attack.
    """

    broke: Tensor
    ahead: Tensor


def square_check(
    runner: Runner,
    x: Tensor,
    y: Tensor,
    index: Tensor,
    threat: ThreatModel,
    loss: LossName,
    reached: Tensor,
    cost: int,
    seed: int,
) -> SquareCheck:
    """Compare a few queries of Square with an attack on the first images, at most a tile of them.

    Random patches find much less than gradients wherever gradients are informative: on networks
    without masked gradients they were ahead on at most one image in seven, mostly in the last few
    digits. Where gradients are masked, they are ahead on most images.

    Args:
        x, y, index: correctly classified images that the attack did not break.
        loss, reached: the attack's objective, and ``(n,)`` the highest value that it reached.
        cost: the attack's passes, in images; a backward pass counts as two.
    """
    m = min(len(x), TILE)
    if m == 0:
        return SquareCheck(torch.zeros(0, dtype=torch.bool), torch.zeros(0, dtype=torch.bool))
    # The starting point and the final evaluation are one pass each.
    queries = min(max(round(_SHARE * cost / TILE) - 2, _FEWEST), _MOST)
    images, labels = x[:m].to(runner.device), y[:m].to(runner.device)
    best, broken = search(
        runner, images, labels, index[:m], threat, queries, seed, lambda share: None
    )
    values = OBJECTIVES[loss](runner.logits(best), labels).cpu()
    own = reached[:m].cpu()
    broke = broken.cpu()
    return SquareCheck(broke, broke | (values > own + _ROUNDING * own.abs().clamp_min(1e-3)))
