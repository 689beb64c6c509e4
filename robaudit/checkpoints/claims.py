"""Accuracies and epochs that training scripts record beside the weights. No torch."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

# Of the test set and on clean images; a training accuracy or a robust one is another number.
_NAME = re.compile(
    r"(best_?)?((test|val|valid|clean|nat|natural|std|standard|eval)_?){0,2}"
    r"((acc|accuracy|prec1|acc1|acc@1|top1|top_1)(_?(clean|nat|natural|std|1|top1))?|sa|err|error)"
)
_ROBUST = re.compile(
    r"(best_?)?((test|val|valid|eval)_?)?(ra|(robust|rob|adv|pgd)_?(acc|accuracy))"
)
_ERRORS = ("err", "error")
# A record is of the whole test set, perhaps of another epoch than the best.
_POINTS = 0.03
_ERRORS_OF_SHARE = 3.0


def claimed_accuracies(metadata: Mapping[str, str]) -> dict[str, float]:
    """Clean test accuracies among the plain values of a checkpoint, as fractions.

    Values above 1 are read as percentages; impossible accuracies are left out.

    >>> claimed_accuracies({"acc": "63.04", "best_acc": "0.5", "train_acc": "99", "epoch": "3"})
    {'acc': 0.6304, 'best_acc': 0.5}
    """
    return _fractions(metadata, _NAME, errors=_ERRORS)


def _fractions(
    metadata: Mapping[str, str], names: re.Pattern[str], errors: tuple[str, ...]
) -> dict[str, float]:
    found = {}
    for name, text in metadata.items():
        plain = name.lower().replace("-", "_")
        if not names.fullmatch(plain):
            continue
        try:
            value = float(text)
        except ValueError:
            continue
        fraction = value / 100 if value > 1 else value
        if plain.endswith(errors) and errors:
            fraction = 1 - fraction
        if math.isfinite(fraction) and 0 < fraction <= 1:
            found[name] = fraction
    return found


def claimed_robust_accuracies(metadata: Mapping[str, str]) -> dict[str, float]:
    """Robust accuracies among the plain values of a checkpoint, as fractions; threat model unknown.

    >>> claimed_robust_accuracies({"best_ra": "53.98", "test_robust_acc": "0.6291", "sa": "64"})
    {'best_ra': 0.5398, 'test_robust_acc': 0.6291}
    """
    return _fractions(metadata, _ROBUST, errors=())


def recorded_epoch(metadata: Mapping[str, str]) -> float | None:
    """The ``epoch`` among the plain values of a checkpoint, where it is a number.

    >>> recorded_epoch({"epoch": "12"}), recorded_epoch({"epoch": "last"})
    (12.0, None)
    """
    try:
        epoch = float(metadata.get("epoch", ""))
    except ValueError:
        return None
    return epoch if math.isfinite(epoch) else None


def far_claims(
    clean: Mapping[str, float], robust: Mapping[str, float], accuracy: float, n: int
) -> str:
    """Which recorded accuracies contradict this clean accuracy on ``n`` images; or ``""``.

    The threat model of a recorded robust accuracy is unknown, but it cannot exceed the clean
    accuracy.

    >>> far_claims({"sa": 0.64}, {}, 0.47, 512)
    'it records sa = 64.0%, but 47.0% of 512 images are right'
    >>> far_claims({}, {"ra": 0.54}, 0.63, 512)
    ''
    """
    noise = _POINTS + _ERRORS_OF_SHARE * math.sqrt(max(accuracy * (1 - accuracy), 0.01) / n)
    far = [(name, said) for name, said in clean.items() if abs(said - accuracy) > noise]
    far += [(name, said) for name, said in robust.items() if said - accuracy > noise]
    if not far:
        return ""
    listed = ", ".join(f"{name} = {said:.1%}" for name, said in far[:3])
    return f"it records {listed}, but {accuracy:.1%} of {n} images are right"
