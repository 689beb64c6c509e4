"""What the signatures share: blocks counted, shapes of a given rank, guesses that make sense."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from math import isqrt

from robaudit.checkpoints.architectures.architecture import Arguments, Shapes

_MAX_BLOCKS = 256


def positive(arguments: Arguments, **either: Sequence[int | str]) -> list[Arguments]:
    """A guess, unless a size in it is not positive; one for each way to choose from ``either``.

    >>> positive({"width": 16}, activation=("relu", "silu"))
    [{'width': 16, 'activation': 'relu'}, {'width': 16, 'activation': 'silu'}]
    """
    if any(isinstance(value, int) and value < 1 for value in arguments.values()):
        return []
    return [{**arguments, **dict(zip(either, c, strict=True))} for c in product(*either.values())]


def numbered(shapes: Shapes, prefix: str, ending: str) -> int:
    """How many of ``{prefix}0{ending}``, ``{prefix}1{ending}``, ... there are before one lacks.

    None, where there are more than any network has: building it would take minutes.

    >>> numbered({"stage.0.w": (), "stage.1.w": (), "stage.3.w": ()}, "stage.", ".w")
    2
    """
    count = 0
    while f"{prefix}{count}{ending}" in shapes:
        count += 1
    return count if count <= _MAX_BLOCKS else 0


def of_rank(shapes: Shapes, key: str, rank: int) -> tuple[int, ...] | None:
    """The shape of ``key``, where it is there with as many dimensions and none is empty."""
    shape = shapes.get(key, ())
    return shape if len(shape) == rank and min(shape, default=0) > 0 else None


def side(features: int, channels: int) -> int:
    """Side of the square map whose ``channels`` flatten to ``features``; 0 if there is none.

    >>> side(2048, 512), side(512, 512), side(1000, 512)
    (2, 1, 0)
    """
    area, rest = divmod(features, channels)
    return isqrt(area) if rest == 0 and isqrt(area) ** 2 == area else 0


def indexed(shapes: Shapes, prefix: str, ending: str) -> list[tuple[int, tuple[int, ...]]]:
    """Index and shape of the keys ``{prefix}{index}{ending}``, by index.

    >>> indexed({"2.w": (5,), "0.w": (4, 5), "b": ()}, "", ".w")
    [(0, (4, 5)), (2, (5,))]
    """
    found = []
    for key, shape in shapes.items():
        index = key.removeprefix(prefix).removesuffix(ending)
        if key == f"{prefix}{index}{ending}" and index.isdecimal() and len(index) < 6:
            found.append((int(index), shape))
    return sorted(found)
