"""What a recipe does to its training data before the first epoch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from robaudit.training.extra_data import ExtraData
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
        extra: fills a part of every batch, or ``None``.
    """

    rows: Tensor
    x: Images
    y: Labels
    held: HeldOut | None
    extra: ExtraData | None


def prepared(
    examples: Examples,
    recipe: Recipe,
    device: torch.device | None = None,
    extra: Examples | None = None,
) -> TrainingData:
    """The examples as the recipe takes them, on ``device``.

    Raises:
        UsageError: too few examples to hold some out.
    """
    n, x, y, held = len(examples), examples.x, _labels(examples, recipe), None
    rows = torch.arange(n)
    if recipe.validation:
        rows, others = held_out(n, recipe.validation, recipe.seed)
        index = examples.index[others]
        held = HeldOut(x[others].to(device), examples.y[others].to(device), index)
        x, y = x[rows], y[rows]
    more = None
    if extra is not None:
        more = ExtraData(extra.x.to(device), extra.y.to(device), recipe.extra_share)
    return TrainingData(rows, x.to(device), y.to(device), held, more)


def _labels(examples: Examples, recipe: Recipe) -> Labels:
    if not recipe.label_noise:
        return examples.y
    classes = examples.classes or int(examples.y.max()) + 1
    return noisy_labels(examples.y, examples.index, classes, recipe.label_noise, recipe.seed)
