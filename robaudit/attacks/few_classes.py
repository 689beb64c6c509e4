"""Which attacks of an ensemble a network of few classes allows, and with how many targets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

# Classes that an attack's loss needs: the untargeted DLR loss takes the third largest logit,
# the targeted one the fourth.
LEAST_CLASSES = {"apgd-dlr": 3, "apgd-t": 4}


def runnable(
    names: Sequence[str], targets: Mapping[str, int], classes: int
) -> tuple[list[str], list[str]]:
    """The attacks that a network of ``classes`` outputs allows, and notes on the others.

    Args:
        names: attacks, as the reference library calls them.
        targets: how many targets each targeted attack asks for; there are at most ``classes - 1``.

    >>> runnable(["apgd-ce", "apgd-t", "fab-t"], {"apgd-t": 9, "fab-t": 9}, classes=3)[0]
    ['apgd-ce', 'fab-t']
    """
    possible = [name for name in names if LEAST_CLASSES.get(name, 2) <= classes]
    capped = [name for name in possible if targets.get(name, 0) > classes - 1]
    notes = []
    if capped:
        notes.append(
            f"{' and '.join(capped)} ran with {classes - 1} targets: there are {classes} classes"
        )
    notes += [
        f"{name} is left out: its loss needs {LEAST_CLASSES[name]} classes"
        for name in names
        if name not in possible
    ]
    return possible, notes
