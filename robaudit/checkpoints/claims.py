"""What training scripts record beside the weights: accuracies, the epoch. No torch."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

# Of the test set and on clean images; a training accuracy or a robust one is another number.
_NAME = re.compile(
    r"(best_?)?((test|val|valid|clean|nat|natural|std|standard|eval)_?){0,2}"
    r"(acc|accuracy|prec1|acc1|acc@1|top1|top_1)(_?(clean|nat|natural|std|1|top1))?"
)


def claimed_accuracies(metadata: Mapping[str, str]) -> dict[str, float]:
    """Clean test accuracies among the plain values of a checkpoint, as fractions.

    Values above 1 are taken for percentages; what cannot be an accuracy is left out.

    >>> claimed_accuracies({"acc": "63.04", "best_acc": "0.5", "train_acc": "99", "epoch": "3"})
    {'acc': 0.6304, 'best_acc': 0.5}
    """
    found = {}
    for name, text in metadata.items():
        if not _NAME.fullmatch(name.lower().replace("-", "_")):
            continue
        try:
            value = float(text)
        except ValueError:
            continue
        fraction = value / 100 if value > 1 else value
        if math.isfinite(fraction) and 0 < fraction <= 1:
            found[name] = fraction
    return found


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
