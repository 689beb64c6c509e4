"""PGD within several radii: each begins where the smaller one ended, and adds to what it broke."""

from __future__ import annotations

import torch
from torch import Tensor

from robaudit.attacks.result import AttackResult, known
from robaudit.engine.precision import coarsest
from robaudit.engine.projections import per_image
from robaudit.engine.spilled import computed


def grown(adv: Tensor, x: Tensor, old: float, new: float) -> Tensor:
    """The same perturbation, as much longer as the radius has grown."""
    return computed(x, lambda rows: x[rows] + (adv[rows] - x[rows]) * (new / old))


def worse(before: AttackResult, after: AttackResult) -> AttackResult:
    """For each example the worse of two attacks; the second had the larger radius."""

    def chosen(first: Tensor, mask: Tensor, second: Tensor) -> Tensor:
        return computed(
            first, lambda rows: torch.where(per_image(first, mask[rows]), first[rows], second[rows])
        )

    held = before.loss > after.loss
    new = ~after.robust
    return AttackResult(
        x=chosen(before.x, held, after.x),
        loss=torch.maximum(before.loss, after.loss),
        robust=before.robust & after.robust,
        correct=after.correct,
        forwards=before.forwards + after.forwards,
        backwards=before.backwards + after.backwards,
        broken_x=chosen(known(after.broken_x), new | before.robust, known(before.broken_x)),
        stuck=known(before.stuck) & known(after.stuck),
        reached=torch.maximum(known(before.reached), known(after.reached)),
        searched=coarsest((before.searched, after.searched)),
    )
