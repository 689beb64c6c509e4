"""A cross-check: does a short search without gradients do better than an attack with them?"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from robaudit.attacks.objectives import OBJECTIVES, LossName
from robaudit.attacks.square import search
from robaudit.engine import TILE, Runner
from robaudit.types import ThreatModel

# Of what the attack cost, what the check may cost; and the fewest and the most queries an image.
_SHARE = 0.1
_FEWEST, _MOST = 4, 100
# What rounding moves an objective by, in units of itself.
_ROUNDING = 1e-4


@dataclass(frozen=True)
class SquareCheck:
    """How the short search did: ``(m,)`` bool of the images that it looked at.

    Attributes:
        broke: misclassified, which the attack had not managed.
        ahead: those, and the images whose objective it took higher than the attack did.
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
    """Which of the first images a few queries of Square take further than an attack took them.

    Blind patches find less than gradients do, by far, wherever gradients tell the truth: on every
    honest network at hand they are ahead on at most one image in seven, mostly in a few of the last
    digits. Where the loss rises along gradients that lead nowhere, they are ahead on most.

    Args:
        x, y, index: correctly classified images that the attack left standing.
        loss, reached: its objective, and ``(n,)`` the highest value that it met.
        cost: its passes, in images; a backward pass counts as two.

    Returns: of the first images, at most a tile of them.
    """
    m = min(len(x), TILE)
    if m == 0:
        return SquareCheck(torch.zeros(0, dtype=torch.bool), torch.zeros(0, dtype=torch.bool))
    # The first guess and the last look are a pass each.
    queries = min(max(round(_SHARE * cost / TILE) - 2, _FEWEST), _MOST)
    images, labels = x[:m].to(runner.device), y[:m].to(runner.device)
    best, broken = search(
        runner, images, labels, index[:m], threat, queries, seed, lambda share: None
    )
    values = OBJECTIVES[loss](runner.logits(best), labels).cpu()
    own = reached[:m].cpu()
    broke = broken.cpu()
    return SquareCheck(broke, broke | (values > own + _ROUNDING * own.abs().clamp_min(1e-3)))
