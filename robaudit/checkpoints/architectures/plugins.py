"""Architectures that other packages register by entry points."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING

from robaudit.checkpoints.architectures.architecture import Architecture, Arguments, Shapes

if TYPE_CHECKING:
    from torch import nn

GROUP = "robaudit.architectures"


@cache
def registered() -> Mapping[str, Architecture]:
    """What the entry points of the group ``robaudit.architectures`` give, by name.

    An entry point is an :class:`Architecture`, or a factory, which is built only when it is named.
    Loading one runs the package's code; one that fails is skipped with a warning.
    """
    found = {}
    for point in entry_points(group=GROUP):
        try:
            found[point.name] = _architecture(point)
        except Exception as error:  # someone else's code
            warnings.warn(
                f"the architecture {point.name!r} of the entry point {point.value!r} is skipped: "
                f"{type(error).__name__}: {error}",
                RuntimeWarning,
                stacklevel=2,
            )
    return found


def _architecture(point: EntryPoint) -> Architecture:
    loaded = point.load()
    if isinstance(loaded, Architecture):
        return loaded
    if not callable(loaded):
        raise TypeError("it is neither an Architecture nor a function that builds a network")
    factory: Callable[..., nn.Module] = loaded
    return Architecture(point.name, _nothing, factory, usual={})


def _nothing(shapes: Shapes) -> tuple[Arguments, ...]:
    return ()
