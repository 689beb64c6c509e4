"""What several families share: activations, convolutions, pooling, networks of named parts."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from torch import Tensor, nn

ACTIVATIONS: Mapping[str, Callable[[], nn.Module]] = {"relu": nn.ReLU, "silu": nn.SiLU}


def activations(name: str) -> Callable[[], nn.Module]:
    """Makes new activation layers, never in place.

    Raises:
        ValueError: the name is none of :data:`ACTIVATIONS`.
    """
    one_of(ACTIVATIONS, activation=name)
    return ACTIVATIONS[name]


class Network(nn.Sequential):
    """Named parts, one after another: logits ``(n, k)`` of images ``(n, c, h, w)``."""

    def __init__(self, parts: Iterable[tuple[str, nn.Module]]) -> None:
        super().__init__(OrderedDict(parts))


def place(module: nn.Module, name: str, part: nn.Module | nn.Parameter) -> None:
    """Add a part to a network under a dotted name, with empty modules on the way to it.

    Raises:
        ValueError: the name is taken.
    """
    *path, last = name.split(".")
    for step in path:
        if step not in module._modules:
            module.add_module(step, nn.Module())
        module = module.get_submodule(step)
    if last in module._modules:
        raise ValueError(f"{last} is named twice")
    setattr(module, last, part)


def part_of(module: nn.Module, name: str) -> nn.Module:
    """The part under a dotted name: ``get_submodule`` without its checks, for forward passes."""
    found: Any = module
    for step in name.split("."):
        found = found._modules[step]
    made: nn.Module = found
    return made


def conv(inputs: int, outputs: int, kernel: int, stride: int = 1, bias: bool = False) -> nn.Conv2d:
    """A convolution that keeps the size of the map but for its stride."""
    return nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=bias)


def one_of(known: Iterable[str], **argument: str) -> None:
    """Check an argument, given under its name.

    Raises:
        ValueError: it is none of those known.
    """
    for name, value in argument.items():
        if value not in known:
            raise ValueError(f"{name} {value!r} is none of {', '.join(known)}")


class PooledFlatten(nn.Module):
    """Average over the map, to a ``side`` x ``side`` one, and flatten.

    Raises:
        ValueError: on a map smaller than that, which adaptive pooling would blow up.
    """

    def __init__(self, side: int = 1) -> None:
        super().__init__()
        self.side = side
        self.pool = nn.AdaptiveAvgPool2d(side)

    def forward(self, x: Tensor) -> Tensor:
        if min(x.shape[-2:]) < self.side:
            raise ValueError(f"the map is {tuple(x.shape[-2:])}, smaller than {self.side}")
        out: Tensor = self.pool(x).flatten(1)
        return out
