"""Training examples that are held out, and what a network does on them after each epoch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from robaudit.attacks import pgd
from robaudit.engine import generator
from robaudit.errors import UsageError

if TYPE_CHECKING:
    from robaudit.training.precision import TrainingPrecision
    from robaudit.training.recipe import Recipe
    from robaudit.types import Images, Labels, ThreatModel


@dataclass(frozen=True)
class HeldOut:
    """Examples that are not trained on: images, labels and positions in their data set."""

    x: Images
    y: Labels
    index: Tensor


@dataclass(frozen=True)
class Validation:
    """A network on the examples held out.

    Attributes:
        clean: accuracy.
        robust: accuracy under PGD.
        loss: mean over examples of the highest cross-entropy that PGD met.
    """

    clean: float
    robust: float
    loss: float


def held_out(n: int, share: float, seed: int) -> tuple[Tensor, Tensor]:
    """Rows to train on and rows held out, both ascending; at least one of each.

    ``round(share n)`` of them are held out, drawn without replacement; a smaller share holds out a
    part of what a larger one does.

    Raises:
        UsageError: there is only one example.
    """
    if n < 2:
        raise UsageError("validation holds examples out, and there is only one", "Train on more.")
    count = min(max(1, round(share * n)), n - 1)
    order = torch.randperm(n, generator=generator(seed, "validation"))
    return order[count:].sort().values, order[:count].sort().values


def validated(
    model: nn.Module,
    held: HeldOut,
    recipe: Recipe,
    threat: ThreatModel,
    precision: TrainingPrecision = "fp32",
) -> Validation:
    """Clean and robust accuracy and the robust loss, by the recipe's attack with its best iterate.

    Starts depend on the recipe's seed and the examples' positions alone: they are the same after
    every epoch. The attack searches in ``precision``, and the network in float32 judges.
    """
    attack = recipe.attack
    met = pgd(
        model,
        held.x,
        held.y,
        threat,
        steps=attack.steps,
        step_size=attack.step_size,
        seed=recipe.seed,
        index=held.index,
        precision=precision,
    )
    clean, robust, loss = (
        float(values.double().mean()) for values in (met.correct, met.robust, met.loss)
    )
    return Validation(clean, robust, loss)
