"""Network families robaudit can rebuild from a bare state dict, one file a family.

A family is a factory, and a signature that reads the factory's arguments off a state dict's shapes.
:mod:`.registry` lists them and finds the networks that fit; the models of torchvision and timm come
from the table in :mod:`.library`.
"""

from robaudit.checkpoints.architectures.architecture import (
    Architecture,
    Arguments,
    Candidate,
    Shapes,
    UnknownArchitectureError,
)
from robaudit.checkpoints.architectures.parsing import parse_arch
from robaudit.checkpoints.architectures.registry import ARCHITECTURES, identify, named, suspect

__all__ = [
    "ARCHITECTURES",
    "Architecture",
    "Arguments",
    "Candidate",
    "Shapes",
    "UnknownArchitectureError",
    "identify",
    "named",
    "parse_arch",
    "suspect",
]
