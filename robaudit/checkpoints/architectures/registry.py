"""The families, by name, and the search among them. A new family is one file and one line here."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from robaudit.checkpoints.architectures import digits_resnet, digits_vit
from robaudit.checkpoints.architectures.architecture import Architecture, Shapes

ARCHITECTURES: Mapping[str, Architecture] = MappingProxyType(
    {
        family.name: family
        for family in (
            digits_resnet.ARCHITECTURE,
            digits_vit.ARCHITECTURE,
        )
    }
)


def identify(shapes: Shapes) -> tuple[str, dict[str, int]] | None:
    """The family whose keys and shapes fit, and its factory's arguments; ``None`` if none does.

    Families are tried in the order of :data:`ARCHITECTURES`; as a fit means every key and every
    shape, two families can only both fit when they hold the same parameters.
    """
    for family in ARCHITECTURES.values():
        arguments = family.recognise(shapes)
        if arguments is not None:
            return family.name, arguments
    return None
