"""Network families robaudit can rebuild from a bare state dict, one file a family.

A family is a factory, and a function that reads the factory's arguments off a state dict's shapes.
:mod:`.registry` lists them; :func:`identify` finds the one that fits.
"""

from robaudit.checkpoints.architectures.architecture import Architecture, Shapes
from robaudit.checkpoints.architectures.registry import ARCHITECTURES, identify

__all__ = ["ARCHITECTURES", "Architecture", "Shapes", "identify"]
