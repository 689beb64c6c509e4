"""The families, by name, and the search among them.

A new family is one file with its factory, one signature, and one line here.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from robaudit.checkpoints.architectures import signatures
from robaudit.checkpoints.architectures.architecture import Architecture, Shapes

ARCHITECTURES: Mapping[str, Architecture] = MappingProxyType(
    {
        family.name: family
        for family in (
            Architecture("digits_resnet", signatures.digits_resnet),
            Architecture("digits_vit", signatures.digits_vit),
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


def suspect(shapes: Shapes) -> tuple[str, dict[str, int]] | None:
    """The first family whose tell-tale keys are there, without torch and without certainty."""
    for family in ARCHITECTURES.values():
        arguments = family.guess(shapes)
        if arguments is not None:
            return family.name, arguments
    return None
