"""What a recipe does to its training data before the first epoch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from robaudit.training.label_noise import noisy_labels

if TYPE_CHECKING:
    from robaudit.training.recipe import Recipe
    from robaudit.types import Examples, Labels


def training_labels(examples: Examples, recipe: Recipe) -> Labels:
    """The labels ``(n,)`` that are trained on: the data's, or with the recipe's noise."""
    if not recipe.label_noise:
        return examples.y
    classes = examples.classes or int(examples.y.max()) + 1
    return noisy_labels(examples.y, examples.index, classes, recipe.label_noise, recipe.seed)
