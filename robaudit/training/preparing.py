"""What a recipe does to its training data before the first epoch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from robaudit.training.label_noise import noisy_labels
from robaudit.training.validation import HeldOut, held_out

if TYPE_CHECKING:
    from robaudit.training.recipe import Recipe
    from robaudit.types import Examples, Images, Labels


@dataclass(frozen=True)
class TrainingData:
    """What is trained on, and what is held out.

    Attributes:
        rows: of the examples that are trained on, ascending.
        x, y: their images and labels, which may be noisy.
        held: the others with their true labels, or ``None``.
    """

    rows: Tensor
    x: Images
    y: Labels
    held: HeldOut | None


def prepared(
    examples: Examples, recipe: Recipe, device: torch.device | None = None
) -> TrainingData:
    """The examples as the recipe takes them, on ``device``.

    Raises:
        UsageError: too few examples to hold some out.
    """
    n, y = len(examples), _labels(examples, recipe)
    if not recipe.validation:
        return TrainingData(torch.arange(n), examples.x.to(device), y.to(device), None)
    rows, others = held_out(n, recipe.validation, recipe.seed)
    index = examples.index[others]
    held = HeldOut(examples.x[others].to(device), examples.y[others].to(device), index)
    return TrainingData(rows, examples.x[rows].to(device), y[rows].to(device), held)


def _labels(examples: Examples, recipe: Recipe) -> Labels:
    if not recipe.label_noise:
        return examples.y
    classes = examples.classes or int(examples.y.max()) + 1
    return noisy_labels(examples.y, examples.index, classes, recipe.label_noise, recipe.seed)
