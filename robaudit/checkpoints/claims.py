"""Accuracies that training scripts record beside the weights. No torch."""

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
