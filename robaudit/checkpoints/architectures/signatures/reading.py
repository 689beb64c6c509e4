"""What the signatures share: sizes read from shapes, blocks counted, plausible guesses."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from math import isqrt

from robaudit.checkpoints.architectures.architecture import Arguments, Shapes

_MAX_BLOCKS = 256


def positive(arguments: Arguments, **either: Sequence[int | str]) -> list[Arguments]:
    """A guess for each way to choose from ``either``; none if a size is below 1, or without any.

    >>> positive({"width": 16}, activation=("relu", "silu"))
    [{'width': 16, 'activation': 'relu'}, {'width': 16, 'activation': 'silu'}]
    """
    if not arguments or any(isinstance(v, int) and v < 1 for v in arguments.values()):
        return []
    return [{**arguments, **dict(zip(either, c, strict=True))} for c in product(*either.values())]


def numbered(shapes: Shapes, prefix: str, ending: str) -> int:
    """The number of keys ``{prefix}0{ending}``, ``{prefix}1{ending}``, ... without a gap.

    0 if there are more than any network has: building it would take minutes.

    >>> numbered({"stage.0.w": (), "stage.1.w": (), "stage.3.w": ()}, "stage.", ".w")
    2
    """
    count = 0
    while f"{prefix}{count}{ending}" in shapes:
        count += 1
    return count if count <= _MAX_BLOCKS else 0


def read(shapes: Shapes, **places: tuple[str, int, int]) -> dict[str, int]:
    """A size for each place ``(key, rank, dimension)``.

    Nothing where a key is absent, has another rank or has an empty dimension: the shapes are of
    another family.

    >>> read({"fc.weight": (10, 64), "conv.weight": (16, 3, 3, 3)}, classes=("fc.weight", 2, 0))
    {'classes': 10}
    """
    found = {}
    for name, (key, rank, dimension) in places.items():
        shape = shapes.get(key, ())
        if len(shape) != rank or min(shape, default=0) < 1:
            return {}
        found[name] = shape[dimension]
    return found


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
