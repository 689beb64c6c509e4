"""Tries classifiers on labelled images: all on a few, the best of them on more."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from robaudit.checkpoints.classifier import Classifier, Trial
from robaudit.checkpoints.stationarity import shift_t2
from robaudit.engine import TILE, device_of, frozen
from robaudit.engine.raised import blame, is_foreign
from robaudit.errors import CheckpointError, NotMeasuredError
from robaudit.types import Examples

SCREEN = 32
DECIDE = 512
_FINALISTS = 6


@dataclass(frozen=True, eq=False)
class Tried:
    """A classifier, and which images of a sample it is right on."""

    model: Classifier
    right: Tensor
    shift_t2: float | None = None

    @property
    def correct(self) -> int:
        return int(self.right.sum())

    @property
    def accuracy(self) -> float:
        return self.correct / len(self.right)

    @property
    def trial(self) -> Trial:
        origin = self.model.origin
        n = len(self.right)
        return Trial(origin.architecture, origin.normalization, self.correct, n, self.shift_t2)


def contest(models: Sequence[Classifier], examples: Examples) -> tuple[list[Tried], list[int]]:
    """Try all on few images and the best of them on more.

    Returns:
        every result, in the order of ``models``, and the places of those that were tried on more.
    """
    sample, screen = spread(examples, DECIDE), spread(examples, SCREEN)
    if len(models) == 1:
        return [_tried(models[0], sample)], [0]
    tried = [_tried(model, screen) for model in models]
    best = max(one.correct for one in tried)
    # What is three standard errors behind does not catch up.
    bar = best - 3 * math.sqrt(max(best * (1 - best / len(screen)), 1.0))
    ranked = sorted(range(len(tried)), key=lambda k: -tried[k].correct)[:_FINALISTS]
    places = sorted(k for k in ranked if tried[k].correct >= bar)
    if len(sample) > len(screen):
        for k in places:
            tried[k] = _tried(models[k], sample)
    return tried, places


def at_rest(one: Tried, examples: Examples) -> Tried:
    """The same with its :func:`~robaudit.checkpoints.stationarity.shift_t2`, where it has one."""
    try:
        found = shift_t2(one.model, spread(examples, DECIDE))
    except BaseException as error:
        if not (is_foreign(error) or isinstance(error, NotMeasuredError)):
            raise
        return one
    return replace(one, shift_t2=found) if math.isfinite(found) else one


def standard_errors_behind(one: Tried, other: Tried) -> float:
    """How far ``one`` is behind ``other``, in standard errors of the paired difference.

    With ``b`` images that only the other is right on and ``c`` that only the one is,
    ``(b - c) / sqrt(b + c)`` (McNemar 1947); negative where the one is ahead.
    """
    b = int((other.right & ~one.right).sum())
    c = int((one.right & ~other.right).sum())
    return (b - c) / math.sqrt(max(b + c, 1))


def spread(examples: Examples, n: int) -> Examples:
    """At most n examples, evenly over the set: a set may be sorted by class."""
    if len(examples) <= n:
        return examples
    rows = torch.arange(n) * len(examples) // n
    return examples.taken(rows)


def _tried(model: Classifier, sample: Examples) -> Tried:
    device = device_of(model)
    try:
        with frozen(model), torch.no_grad():
            found = [model(x.to(device)).argmax(1).cpu() for x in torch.split(sample.x, TILE)]
    except BaseException as error:
        if not (is_foreign(error) or isinstance(error, NotMeasuredError)):
            raise
        raise CheckpointError(
            f"the network cannot be run on {sample.name}: {blame(error)}",
            "Check --data and --arch: channels and image size must be those of training.",
        ) from error
    return Tried(model, torch.cat(found) == sample.y)
