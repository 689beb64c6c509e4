"""What an audit's attacks left of each class, and where its adversarial images go."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from robaudit.audit.certificates import broken_by, standing
from robaudit.audit.context import Context
from robaudit.audit.numbers import LEVEL
from robaudit.engine import frozen
from robaudit.measures import known
from robaudit.statistics import Part, parts_of
from robaudit.types import Examples


@dataclass(frozen=True)
class Outcome:
    """What is known of the examples of one split.

    Attributes:
        correct, robust: ``(n,)`` bool: classified correctly, and also broken by none of the attacks
            within the audit's threat model.
        attacks: their names.
    """

    correct: Tensor
    robust: Tensor
    attacks: tuple[str, ...]


def outcome_of(context: Context, split: str) -> Outcome | None:
    """What the attacks so far left of a split; ``None`` where none attacked it."""
    correct = context.outcomes[f"{split}.accuracy.clean"]
    if split == context.main:
        attacks = tuple(broken_by(context))
        return Outcome(correct, standing(context), attacks) if attacks else None
    names = [row.name.partition(".")[2] for row in known() if row.attack]
    attacks = tuple(name for name in names if f"{split}.accuracy.{name}" in context.outcomes)
    if not attacks:
        return None
    robust = correct.clone()
    for name in attacks:
        robust &= context.outcomes[f"{split}.accuracy.{name}"]
    return Outcome(correct, robust, attacks)


def confusion(context: Context) -> Tensor:
    """``(labels, outputs)``: counts of the classes that adversarial images of each label are given.

    Of every example that was classified correctly and broken, at the first attack's image that
    counts.
    """
    examples = context.splits[context.main]
    left = context.outcomes[f"{context.main}.accuracy.clean"].clone()
    labels, predicted = [], []
    for images, counts in context.broken.values():
        rows = torch.nonzero(counts & left)[:, 0]
        if len(rows) == 0:
            continue
        left[rows] = False
        with frozen(context.model):
            logits = context.runner().logits(images[rows]).cpu()
        labels.append(examples.y[rows])
        predicted.append(logits.argmax(1))
    size = max(examples.classes or 0, int(examples.y.max()) + 1)
    if not labels:
        return torch.zeros(size, size, dtype=torch.int64)
    of, to = torch.cat(labels), torch.cat(predicted)
    wide = max(size, int(to.max()) + 1)
    return torch.bincount(of * wide + to, minlength=size * wide).reshape(-1, wide)


def shares(context: Context, split: str, found: Outcome) -> tuple[list[Part], list[Part]]:
    """Clean and robust accuracies of the classes of a split."""
    examples = context.splits[split]
    groups = context.groups(split, len(examples))
    given = None if groups is None else groups.numpy()
    clean, robust = (
        parts_of(rows.numpy(), examples.y.numpy(), LEVEL, given)
        for rows in (found.correct, found.robust)
    )
    return clean, robust


def class_rows(
    examples: Examples, clean: Sequence[Part], robust: Sequence[Part]
) -> list[dict[str, Any]]:
    """The table of a split, a row for each class that has examples."""
    return [
        {
            "label": one.label,
            "name": name_of(examples, one.label),
            "n": one.n,
            "clean": one.share,
            "clean_low": one.interval.low,
            "clean_high": one.interval.high,
            "robust": other.share,
            "low": other.interval.low,
            "high": other.interval.high,
        }
        for one, other in zip(clean, robust, strict=True)
    ]


def absent(examples: Examples) -> list[int]:
    """The labels that no example has, of a data set whose number of classes is known."""
    classes = examples.classes or len(examples.class_names)
    there = set(examples.y.tolist())
    return [label for label in range(classes) if label not in there]


def name_of(examples: Examples, label: int) -> str:
    """The class's name; the label itself where the data names none."""
    named = label < len(examples.class_names) and examples.class_names[label]
    return named or str(label)
