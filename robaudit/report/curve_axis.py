"""The horizontal axis of a curve: epochs, another number in the names, or the order given."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PureWindowsPath
from typing import Literal

from robaudit.report.text import model_name, plain

_NUMBER = re.compile(r"(\d+(?:\.\d+)?)")
EPOCH = re.compile(r"(?<![a-z])(?:epochs?|ep)[^a-z0-9]{0,2}(\d+)", re.IGNORECASE)
_WORD = re.compile(r"([^\W\d_]+)[\W_]*$")


@dataclass(frozen=True)
class Axis:
    """A different place for each checkpoint.

    Attributes:
        name: ``epoch``, the word before the names' numbers, ``number`` where there is no word, or
            ``position``.
        by: where the places are from: the files' ``name``, the epoch recorded in the ``file``, or
            the ``order`` given.
    """

    name: str
    places: tuple[float, ...]
    by: Literal["name", "file", "order"]


def axis_of(sources: Sequence[str], recorded: Sequence[float | None]) -> Axis:
    """The first number that tells the checkpoints apart.

    Tried in this order, each only if all checkpoints have it and no two are equal: the number after
    "epoch" in the names; the epochs recorded in the files; the only number in which the names
    differ. Otherwise 1, 2, ... in the order given.

    Args:
        sources: paths or zoo names, in the order given.
        recorded: the epoch in each file, ``None`` for none.

    >>> axis_of(["epoch_2.pt", "epoch_10.pt"], [None, None])
    Axis(name='epoch', places=(2.0, 10.0), by='name')
    >>> axis_of(["net_w16.pt", "net_w32.pt"], [None, None]).name
    'w'
    >>> axis_of(["best.pt", "last.pt"], [None, None])
    Axis(name='position', places=(1.0, 2.0), by='order')
    """
    stems = [model_name(source) for source in sources]
    folders = [
        f"{plain(PureWindowsPath(source).parent.name)}/{stem}"
        for source, stem in zip(sources, stems, strict=True)
    ]
    for names in (stems, folders):
        labelled = [EPOCH.search(name) for name in names]
        if _apart(places := [None if found is None else float(found[1]) for found in labelled]):
            return Axis("epoch", _all(places), "name")
    if _apart(recorded):
        return Axis("epoch", _all(recorded), "file")
    for names in (stems, folders):
        if (found := _counted(names)) is not None:
            return Axis(found[0], found[1], "name")
    return Axis("position", tuple(float(at + 1) for at in range(len(sources))), "order")


def shown_place(place: float) -> str:
    """A place without needless digits.

    >>> shown_place(1234567.0), shown_place(0.5)
    ('1234567', '0.5')
    """
    return str(int(place)) if place.is_integer() else str(place)


def _counted(names: Sequence[str]) -> tuple[str, tuple[float, ...]] | None:
    """The word before the only number in which the names differ, and that number of each."""
    parts = [_NUMBER.split(name) for name in names]
    if len({tuple(part[::2]) for part in parts}) != 1:
        return None
    columns = list(zip(*(part[1::2] for part in parts), strict=True))
    moving = [at for at, column in enumerate(columns) if len(set(column)) > 1]
    if len(moving) != 1:
        return None
    places = [float(text) for text in columns[moving[0]]]
    if not _apart(places):
        return None
    word = _WORD.search(parts[0][2 * moving[0]])
    return word[1].lower() if word else "number", tuple(places)


def _apart(places: Sequence[float | None]) -> bool:
    return None not in places and len(set(places)) == len(places) > 1


def _all(places: Sequence[float | None]) -> tuple[float, ...]:
    return tuple(place for place in places if place is not None)
