"""Checks adversarial examples with the classifier itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn

from robaudit.engine import Runner, device_of, frozen
from robaudit.engine.arguments import checked
from robaudit.engine.images import tiles
from robaudit.types import ORDERS, ThreatModel

# What the rounding of float32 images and of a projection's arithmetic can add to a distance.
_SLACK = 1e-5


Radius = TypeVar("Radius", float, Tensor)


def accepted_radius(eps: Radius) -> Radius:
    """The largest distance that counts as within ``eps``."""
    return eps * (1 + _SLACK) + 1e-6


@dataclass(frozen=True)
class Verified:
    """Checks of each example, ``(n,)`` on the CPU.

    Attributes:
        distance: ``||x' - x||`` in the threat model's norm, in float64.
        in_ball: the distance is at most eps, up to a relative 1e-5 and an absolute 1e-6.
        in_box: every pixel is in [0, 1].
        wrong: the classifier's largest logit is not the label's; not-a-number counts as right.
    """

    distance: Tensor
    in_ball: Tensor
    in_box: Tensor
    wrong: Tensor

    @property
    def breaks(self) -> Tensor:
        """``(n,)`` bool; inside the threat model, and misclassified."""
        return self.in_ball & self.in_box & self.wrong


@checked
def verify(model: nn.Module, x: Tensor, x_adv: Tensor, y: Tensor, threat: ThreatModel) -> Verified:
    """Check adversarial examples: inside the threat model, and misclassified by the classifier.

    One pass of the original network in float32, however the examples were found.

    Args:
        model: maps images in ``[0, 1]`` to logits ``(n, k)``; left as it was.
        x, x_adv: clean images and adversarial examples, ``(n, c, h, w)``.
        y: labels ``(n,)`` from 0.
        threat: norm and radius of the perturbations.

    Returns:
        Distances and verdicts, one for each example.

    Raises:
        UsageError: shapes that do not agree, or images outside ``[0, 1]``.

    Source: the definition of the threat model, :class:`robaudit.types.ThreatModel`.

    >>> net = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    >>> x, y = torch.zeros(1, 1, 2, 2), torch.tensor([0])
    >>> found = verify(net, x, x + 0.5, y, ThreatModel("linf", 0.1))
    >>> bool(found.in_ball), bool(found.breaks)
    (False, False)
    """
    with frozen(model):
        logits = Runner(model, device_of(model)).logits(x_adv).cpu()
    distances, boxed = [], []
    for part in tiles(x_adv):
        flat = x_adv[part].cpu().flatten(1)
        moved = flat.double() - x[part].cpu().flatten(1).double()
        distances.append(torch.linalg.vector_norm(moved, ORDERS[threat.norm], dim=1))
        boxed.append(((flat >= 0) & (flat <= 1)).all(1))
    distance = torch.cat(distances)
    return Verified(
        distance=distance,
        in_ball=distance <= accepted_radius(threat.eps),
        in_box=torch.cat(boxed),
        wrong=logits.isfinite().all(1) & (logits.argmax(1) != y.cpu()),
    )
