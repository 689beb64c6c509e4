"""A family of networks, and one of its networks as a candidate for a state dict."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib import import_module
from itertools import islice
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from torch import nn

Shapes: TypeAlias = Mapping[str, tuple[int, ...]]
"""The shape of every entry of a state dict, by key."""

Arguments: TypeAlias = Mapping[str, int | str]
"""What a family's factory takes, by name."""

Image: TypeAlias = tuple[int, int, int]
"""Channels, height and width of the images a network is to take."""

_USUAL = {"classes": 10, "channels": 3}


class UnknownArchitectureError(KeyError):
    """No architecture has this name.

    Attributes:
        name: the unknown name.
        near: similar names, the nearest first.
    """

    def __init__(self, name: str, known: Iterable[str]) -> None:
        super().__init__(name)
        self.name = name
        self.near = tuple(difflib.get_close_matches(name, list(known), 3))


@dataclass(frozen=True)
class Lazy:
    """A factory in a module that imports torch, imported when it is first called."""

    module: str
    function: str

    def __call__(self, **arguments: int | str) -> nn.Module:
        made: nn.Module = getattr(import_module(self.module), self.function)(**arguments)
        return made


@dataclass(frozen=True)
class Architecture:
    """A family of networks that differ in a few arguments (classes, channels, depth, width).

    Attributes:
        name: of the family.
        guess: reads the factory's arguments from a state dict's shapes, without torch: one set of
            arguments for each network that may have these shapes, the most usual first, or none
            without the family's characteristic keys. :meth:`fitting` checks the guesses.
        factory: ``factory(**arguments)`` builds a network that maps images ``(n, c, h, w)`` to
            logits ``(n, k)``.
        usual: default arguments, which labels omit; only ones that can be read from shapes.
        exclusive: all guesses are of one network: the first that fits is taken.
        normalization: the ``--normalize`` of every network of the family; ``""`` if that depends on
            training.
        sized: the guess for images of known size, if it depends on that.
        alike: the arguments of a network with the same keys, shapes and images, so that of networks
            that differ only in their activation one is built and compared.
    """

    name: str
    guess: Callable[[Shapes], Sequence[Arguments]]
    factory: Callable[..., nn.Module]
    usual: Arguments = field(default_factory=lambda: dict(_USUAL))
    exclusive: bool = False
    normalization: str = ""
    sized: Callable[[Shapes, Image], Sequence[Arguments]] | None = None
    alike: Callable[[Arguments], Arguments] = dict

    def candidate(self, arguments: Arguments) -> Candidate:
        return Candidate(self.name, arguments, self)

    def guesses(self, shapes: Shapes, image: Image | None) -> Sequence[Arguments]:
        """The guesses, for these images if they are known."""
        if image is None or self.sized is None:
            return self.guess(shapes)
        return self.sized(shapes, image)

    def suspected(self, shapes: Shapes) -> list[Candidate]:
        """The guesses, unchecked."""
        guesses = self.guess(shapes)
        return [self.candidate(guess) for guess in (guesses[:1] if self.exclusive else guesses)]

    def fitting(self, guesses: Iterable[Arguments], shapes: Shapes) -> tuple[Candidate, ...]:
        """The guesses whose networks have exactly these keys and shapes."""
        found = alike_once(map(self.candidate, guesses), lambda c: c.fits(shapes))
        return tuple(islice(found, 1) if self.exclusive else found)


@dataclass(frozen=True)
class Candidate:
    """One network that may have a state dict's keys and shapes.

    Attributes:
        architecture: its name: a family's, ``torchvision:NAME`` or ``timm:NAME``.
        arguments: what the family's factory takes for it.
    """

    architecture: str
    arguments: Arguments = field(hash=False)
    family: Architecture = field(repr=False, compare=False)

    @property
    def label(self) -> str:
        """Its name and arguments as ``--arch`` takes them, without the usual ones."""
        usual = self.family.usual
        said = [f"{k}={v}" for k, v in self.arguments.items() if usual.get(k) != v]
        return f"{self.architecture}({', '.join(said)})" if said else self.architecture

    def build(self) -> nn.Module:
        """The network, with random weights; on the meta device where that is the default.

        Raises:
            ValueError: the arguments are invalid.
            RuntimeError: torch refuses a layer.
            ImportError: its library is not installed.
        """
        try:
            return self.family.factory(**self.arguments)
        except (TypeError, KeyError, IndexError, ArithmeticError, AssertionError) as error:
            raise ValueError(f"{self.label} gives no network: {error}") from error

    def fits(self, shapes: Shapes) -> bool:
        """Whether its network has exactly these keys and shapes."""
        try:
            own = self._sketch.state_dict()
        except (ValueError, RuntimeError, ImportError):
            return False
        return _needed({k: tuple(value.shape) for k, value in own.items()}) == _needed(shapes)

    def takes(self, image: Image) -> bool:
        """Whether its network gives logits ``(n, k)`` for images of this size."""
        return self.outputs(image) != 0

    def outputs(self, image: Image) -> int:
        """The number of logits for images of this size: 0 if its network does not take them, -1 if
        that is unknown without running it.
        """
        import torch

        try:
            network = self._sketch.eval()
            with torch.device("meta"), torch.no_grad():
                logits = network(torch.empty(2, *image))
        except NotImplementedError:  # it has no meta implementation
            return -1
        except (ValueError, RuntimeError, TypeError, AssertionError, ArithmeticError, ImportError):
            return 0
        fits = isinstance(logits, torch.Tensor) and logits.ndim == 2 and len(logits) == 2
        return int(logits.shape[1]) if fits else 0

    @cached_property
    def _sketch(self) -> nn.Module:
        """The network without memory."""
        from robaudit.checkpoints.architectures.sketching import sketch

        return sketch(self.build)


def alike_once(
    candidates: Iterable[Candidate], holds: Callable[[Candidate], bool]
) -> Iterator[Candidate]:
    """The candidates for which it holds, computed once for all that are alike."""
    known: dict[str, bool] = {}
    for candidate in candidates:
        like = candidate.family.candidate(candidate.family.alike(candidate.arguments))
        if like.label not in known:
            known[like.label] = holds(like)
        if known[like.label]:
            yield candidate


def _needed(shapes: Shapes) -> dict[str, tuple[int, ...]]:
    # Batch norm's step counter does not enter its output, and older files lack it.
    return {k: shape for k, shape in shapes.items() if not k.endswith("num_batches_tracked")}
