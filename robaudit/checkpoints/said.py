"""Checks of a network whose architecture and normalisation are given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from robaudit.checkpoints.classifier import Classifier
from robaudit.checkpoints.combinations import Combination
from robaudit.checkpoints.deciding import worth_attacking
from robaudit.checkpoints.labels import check_numbering, classes_guessed, outputs_of
from robaudit.checkpoints.normalization import Normalization, normalize_name, usual
from robaudit.engine import device_of
from robaudit.errors import CheckpointError
from robaudit.statistics import clopper_pearson
from robaudit.types import Examples

_IMAGES = 512
_DOUBTFUL = 0.5


def checked_as_said(one: Combination, examples: Examples) -> tuple[Classifier, ...]:
    """The classifiers, with a warning if another normalisation is significantly better.

    Raises:
        CheckpointError: the accuracy is that of guessing.
    """
    found = one.look(examples, _IMAGES)
    tried: list[Combination] = [one]
    remarks: list[str] = []
    if found.accuracy < _DOUBTFUL:
        tried, remarks = _others(one, examples)
    refuse_guessing(one, tried, examples)
    trials = tuple(other.trial() for other in tried)
    for model in one.models:
        origin = model.origin
        model.origin = replace(origin, warnings=(*origin.warnings, *remarks), trials=trials)
    return one.models


def refuse_guessing(taken: Combination, tried: Sequence[Combination], examples: Examples) -> None:
    """Refuse a network that is no more accurate than guessing.

    Raises:
        CheckpointError: its accuracy is that of guessing.
    """
    right = taken.outcomes.right
    model = taken.models[int(right.sum(1).argmax())]
    check_numbering(model, examples, float(right.double().mean(1).max()))
    classes = classes_guessed(examples, outputs_of(model, examples))
    # The best checkpoint of a run counts: the first may not have learnt anything yet.
    n, correct = right.shape[1], int(right.sum(1).max())
    # Guessing is right on one in k; a little more than that is still no classifier.
    if clopper_pearson(correct, n).high >= min(2.5 / classes, 0.15 + 0.85 / classes):
        return
    seen = [one for one in tried if one.outcomes.right.numel()]
    ranked = sorted(seen, key=lambda one: -one.outcomes.accuracy)[:4]
    listed = ", ".join(f"{one.outcomes.accuracy:.1%} with {one.normalization}" for one in ranked)
    raise CheckpointError(
        f"with --normalize {taken.normalization} the network is right on {correct / n:.1%} of {n} "
        f"images of {examples.name}, as by guessing among {classes} classes (tried: {listed})",
        "Check --data, --arch and --normalize: one of them is not what it was in training.",
    )


def _others(one: Combination, examples: Examples) -> tuple[list[Combination], list[str]]:
    """The usual normalisations too, and a remark if one of them is significantly better."""
    origin = one.models[0].origin
    others = [
        Combination([_with(model, other) for model in one.models], one.network, False)
        for other in usual(examples.x.shape[1])
        if _numbers(other) != _numbers(one.models[0].normalization)
    ]
    for other in others:
        other.look(examples, _IMAGES)
    best = max(others, key=lambda other: other.outcomes.accuracy)
    tried = [one, *others]
    if 0 in worth_attacking([one.outcomes, best.outcomes]):
        return tried, []
    said = "" if origin.normalized_by == "--normalize" else f", as {origin.normalized_by} says"
    return tried, [
        f"the network is right on {one.outcomes.accuracy:.1%} of {one.outcomes.right.shape[1]} "
        f"images with --normalize {origin.normalization}{said}, but on "
        f"{best.outcomes.accuracy:.1%} with --normalize {best.normalization}"
    ]


def _with(model: Classifier, other: Normalization | None) -> Classifier:
    origin = replace(model.origin, normalization=normalize_name(other))
    return Classifier(model.network, other, origin).to(device_of(model))


def _numbers(normalization: Normalization | None) -> tuple[tuple[float, ...], ...]:
    return () if normalization is None else (normalization.mean, normalization.std)
