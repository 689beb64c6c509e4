"""What a network family has to offer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from torch import nn

Shapes: TypeAlias = Mapping[str, tuple[int, ...]]
"""The shape of every entry of a state dict, by key."""


@dataclass(frozen=True)
class Architecture:
    """A family of networks that differ in a few integers (classes, channels, width).

    Attributes:
        name: of the family, of its module in this package and of the factory in that module.
        guess: reads the factory's arguments off a state dict's shapes (:mod:`.signatures`).
    """

    name: str
    guess: Callable[[Shapes], dict[str, int] | None]

    @property
    def factory(self) -> Callable[..., nn.Module]:
        """``factory(**arguments)`` builds a network; loading it imports torch."""
        found: Callable[..., nn.Module] = getattr(
            import_module(f"{__package__}.{self.name}"), self.name
        )
        return found

    def recognise(self, shapes: Shapes) -> dict[str, int] | None:
        """The factory's arguments with which every key and shape fits, or ``None``."""
        import torch

        arguments = self.guess(shapes)
        if arguments is None or min(arguments.values(), default=1) < 1:
            return None
        try:
            # On the meta device nothing is allocated, whatever sizes a hostile file claims.
            with torch.device("meta"):
                network = self.factory(**arguments)
        except (ValueError, RuntimeError, TypeError, ZeroDivisionError):
            return None
        expected = {key: tuple(value.shape) for key, value in network.state_dict().items()}
        return arguments if _needed(expected) == _needed(shapes) else None


def _needed(shapes: Shapes) -> dict[str, tuple[int, ...]]:
    # Batch norm's step counter does not enter its output, and older files are without it.
    return {key: s for key, s in shapes.items() if not key.endswith("num_batches_tracked")}
