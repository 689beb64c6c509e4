"""Lets the data decide what keys and shapes leave open: the variant and the normalisation.

A wrong activation, stride or normalisation costs a trained network much of its accuracy, so that a
few hundred labelled images tell most candidates apart. Those whose accuracy is nearly the same
differ in whether the loss is at rest (:mod:`.stationarity`), which does not favour the candidate
that looks best. What the data cannot tell is said.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import nn

from robaudit.checkpoints.classifier import Classifier, Trial
from robaudit.checkpoints.labels import check_numbering, classes_guessed, outputs_of
from robaudit.checkpoints.normalization import Normalization, normalize_name, usual
from robaudit.checkpoints.proposal import Proposal
from robaudit.checkpoints.suitability import check_suits
from robaudit.checkpoints.trying import Tried, at_rest, contest, standard_errors_behind
from robaudit.engine import device_of
from robaudit.errors import CheckpointError, UsageError
from robaudit.statistics import clopper_pearson
from robaudit.types import Examples

# Standard errors of a paired difference in accuracy.
_NEAR = 3.0
_ALIKE = 2.0
_HARDLY = 1.0
_DOUBTFUL = 0.5
# Chi-squared's 99.9 % points with 1 to 4 degrees of freedom, the channels of the image.
_AT_REST = (10.8, 13.8, 16.3, 18.5)


def choose(proposal: Proposal, examples: Examples | None, device: torch.device) -> Classifier:
    """Settle on one network and one normalisation.

    Args:
        examples: labelled images that decide; without them the first of each is taken, and the
            warnings say that nothing was checked.

    Raises:
        CheckpointError: the accuracy is that of guessing whatever is tried, or the examples do not
            suit the network.
    """
    models = [
        _classifier(proposal, label, network, normalization).to(device)
        for label, network in proposal.networks
        for normalization in proposal.normalizations
    ]
    if examples is None:
        return _unchecked(proposal, models[0])
    running = [model for model in models if _suits(model, examples)]
    if not running:
        check_suits(models[0], examples)
    tried, places = contest(running, examples)
    near, variants = _near(tried, places)
    if len(near) > 1:
        for k in near:
            tried[k] = at_rest(tried[k], examples)
    bar = _AT_REST[min(examples.x.shape[1], 4) - 1]
    taken = _taken(tried, near, bar)
    remarks = [
        *_doubted_variants(tried[taken], [tried[k] for k in variants]),
        *_doubts(tried[taken], [tried[k] for k in near if k != taken], bar),
    ]
    if proposal.origin.normalized_by and tried[taken].accuracy < _DOUBTFUL:
        more, better = _others(proposal, tried[taken], examples)
        tried, remarks = [*tried, *more], [*remarks, *better]
    trials = tuple(one.trial for one in tried)
    _refuse_guessing(tried[taken], trials, examples)
    return _settled(tried[taken], trials, remarks, bar)


def _classifier(
    proposal: Proposal, label: str, network: nn.Module, normalization: Normalization | None
) -> Classifier:
    origin = replace(
        proposal.origin, architecture=label, normalization=normalize_name(normalization)
    )
    return Classifier(network, normalization, origin)


def _unchecked(proposal: Proposal, model: Classifier) -> Classifier:
    warnings = list(model.origin.warnings)
    if len(proposal.networks) > 1:
        others = ", ".join(label for label, _ in proposal.networks[1:])
        warnings.append(
            f"keys and shapes fit {model.origin.architecture} and also {others}; the first was "
            "taken, as there was no data to decide: name one with --arch"
        )
    if not model.origin.normalized_by:
        warnings.append(
            "no normalisation given: images enter the network as they are in [0, 1]; if training "
            "normalised them, pass --normalize, else the accuracy will be far too low"
        )
    model.origin = replace(model.origin, warnings=tuple(warnings))
    return model


def _settled(
    taken: Tried, trials: tuple[Trial, ...], remarks: Sequence[str], bar: float
) -> Classifier:
    origin = taken.model.origin
    by = origin.normalized_by
    if not by:
        by = f"clean accuracy, {taken.accuracy:.1%} of {len(taken.right)} images"
        if taken.shift_t2 is not None:
            by += ", and the loss " + ("being at rest" if _t2(taken) <= bar else "moving least")
            by += " there"
    warnings = (*origin.warnings, *remarks)
    taken.model.origin = replace(origin, normalized_by=by, trials=trials, warnings=warnings)
    return taken.model


def _suits(model: Classifier, examples: Examples) -> bool:
    try:
        check_suits(model, examples)
    except (CheckpointError, UsageError):
        return False
    return True


def _near(tried: Sequence[Tried], places: Sequence[int]) -> tuple[list[int], list[int]]:
    """Normalisations of the most accurate network that are about as accurate; other networks so.

    A shift of the input says nothing of the network behind it, so that networks are told apart by
    their accuracy alone.
    """
    best = max(places, key=lambda k: (tried[k].correct, -k))
    behind = {k: standard_errors_behind(tried[k], tried[best]) for k in places}
    same = {k: tried[k].trial.architecture == tried[best].trial.architecture for k in places}
    near = [k for k in places if same[k] and behind[k] <= _NEAR]
    return near, [k for k in places if not same[k] and behind[k] <= _ALIKE]


def _taken(tried: Sequence[Tried], near: Sequence[int], bar: float) -> int:
    """The most accurate one at which the loss rests, or a more usual one hardly behind it.

    Where the loss rests at none, the one at which it moves least.
    """
    resting = [k for k in near if _t2(tried[k]) <= bar]
    if not resting:
        return min(near, key=lambda k: _t2(tried[k]))
    best = max(resting, key=lambda k: (tried[k].correct, -k))
    return next(k for k in resting if standard_errors_behind(tried[k], tried[best]) <= _HARDLY)


def _doubted_variants(taken: Tried, others: Sequence[Tried]) -> list[str]:
    """Networks that may as well be the one."""
    if not others:
        return []
    listed = ", ".join(f"{one.trial.architecture} ({one.accuracy:.1%})" for one in others)
    return [
        f"{len(taken.right)} images do not tell {taken.trial.architecture} ({taken.accuracy:.1%}) "
        f"from {listed}: --arch would settle it"
    ]


def _doubts(taken: Tried, others: Sequence[Tried], bar: float) -> list[str]:
    """Normalisations that remain possible beside the one that was taken."""
    if not others:
        return []
    images = f"{len(taken.right)} images"
    if _t2(taken) > bar:
        return [
            f"{images} favour {_normalized(taken)}, but training came to rest neither there nor "
            f"with {', '.join(map(_normalized, others))}: if you know the normalisation of "
            "training, give --normalize"
        ]
    alike = [_normalized(one) for one in others if _t2(one) <= bar]
    if not alike:
        return []
    return [
        f"{images} do not tell {_normalized(taken)} from {', '.join(alike)}: --normalize would "
        "settle it"
    ]


def _normalized(one: Tried) -> str:
    return f"--normalize {one.trial.normalization} ({one.accuracy:.1%})"


def _t2(one: Tried) -> float:
    return 0.0 if one.shift_t2 is None else one.shift_t2


def _others(proposal: Proposal, taken: Tried, examples: Examples) -> tuple[list[Tried], list[str]]:
    """Other normalisations than the one that was said, and whether one is plainly better."""
    origin = taken.model.origin
    models = [
        _classifier(proposal, origin.architecture, taken.model.network, other)
        for other in usual(examples.x.shape[1])
        if _numbers(other) != _numbers(taken.model.normalization)
    ]
    device = device_of(taken.model)
    tried, places = contest([model.to(device) for model in models], examples)
    best = max((tried[k] for k in places), key=lambda one: one.correct)
    if standard_errors_behind(taken, best) <= _NEAR:
        return tried, []
    said = "" if origin.normalized_by == "--normalize" else f", as {origin.normalized_by} says"
    return tried, [
        f"the network is right on {taken.accuracy:.1%} of {len(taken.right)} images with "
        f"--normalize {origin.normalization}{said}, but on {best.accuracy:.1%} with --normalize "
        f"{best.trial.normalization}"
    ]


def _numbers(normalization: Normalization | None) -> tuple[tuple[float, ...], ...]:
    return () if normalization is None else (normalization.mean, normalization.std)


def _refuse_guessing(taken: Tried, trials: Sequence[Trial], examples: Examples) -> None:
    check_numbering(taken.model, examples, taken.accuracy)
    classes = classes_guessed(examples, outputs_of(taken.model, examples))
    n = len(taken.right)
    # Guessing is right on one in k; a little more than that is still no classifier.
    if clopper_pearson(taken.correct, n).high >= min(2.5 / classes, 0.15 + 0.85 / classes):
        return
    ranked = sorted(trials, key=lambda trial: -trial.accuracy)[:4]
    listed = ", ".join(f"{t.accuracy:.1%} with {t.normalization}" for t in ranked)
    raise CheckpointError(
        f"with --normalize {taken.trial.normalization} the network is right on "
        f"{taken.accuracy:.1%} of {n} images of {examples.name}, as by guessing among {classes} "
        f"classes (tried: {listed})",
        "Check --data, --arch and --normalize: one of them is not what it was in training.",
    )
