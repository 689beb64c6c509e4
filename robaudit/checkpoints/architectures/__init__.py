"""Network families robaudit can rebuild from a bare state dict.

A family is a factory (:mod:`.residual_families`, :mod:`.convolutional`, :mod:`.transformers`), and
a signature (:mod:`.signatures`) that reads the factory's arguments from a state dict's shapes.
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
