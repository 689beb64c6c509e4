"""The one door to a network: never a single image in, and logits in the images' precision out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from robaudit.errors import NotMeasuredError

_FEWEST = 2


def through(network: Callable[[Tensor], object], x: Tensor) -> Tensor:
    """Logits ``(n, k)`` of images ``(n, c, h, w)``, in the images' floating-point type.

    A single image enters twice, and the second row of logits is dropped, gradient and all: there
    are networks that lose the batch dimension where the batch is one image. Logits in half
    precision, bfloat16 or double are converted, so that no loss is computed in them.

    Raises:
        NotMeasuredError: the output is not one row of floating-point logits for each image.
    """
    given = _two(x)
    logits = as_logits(network(given), given)
    return logits if given is x else logits[: len(x)]


def as_logits(output: object, x: Tensor) -> Tensor:
    """A network's output for the images ``x``, checked and in their floating-point type."""
    if not isinstance(output, Tensor) or output.dim() != 2 or len(output) != len(x):
        got = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise NotMeasuredError(
            f"the network's output for {len(x)} images is {got}, not logits (n, classes)",
            "An --arch factory may wrap the network so that it returns logits alone.",
        )
    if not output.is_floating_point():
        kind = str(output.dtype).removeprefix("torch.")
        raise NotMeasuredError(
            f"the network's output is {kind}, not floating-point logits",
            "An --arch factory may wrap the network so that it returns its logits before they are "
            "rounded, compared or made complex.",
        )
    return output.to(x.dtype)


@contextmanager
def door(model: nn.Module) -> Iterator[None]:
    """Have every call of ``model`` go :func:`through` the door, however it is called.

    An output that is no tensor of floating-point numbers comes out as it is.

    A model with a door of its own says so by an attribute ``has_door``.
    """
    hooks = [getattr(hook, "__self__", None) for hook in model._forward_hooks.values()]
    if getattr(model, "has_door", False) or any(isinstance(hook, _Hooks) for hook in hooks):
        yield
        return
    found = _Hooks()
    handles = [
        model.register_forward_pre_hook(found.enter),
        model.register_forward_hook(found.leave),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


class _Hooks:
    """Both ends of one call. As bound methods they go along when the model is copied."""

    def __init__(self) -> None:
        self.used: int | None = None

    def enter(self, _: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        x, *others = args
        given = _two(x)
        self.used = None if given is x else len(x)
        return (given, *others)

    def leave(self, _: nn.Module, args: tuple[Any, ...], output: object) -> object:
        if not isinstance(output, Tensor) or not output.is_floating_point():
            return output  # whoever asked refuses it
        logits = output.to(args[0].dtype)
        return logits if self.used is None else logits[: self.used]


def _two(x: Tensor) -> Tensor:
    return torch.cat([x] * _FEWEST) if len(x) == 1 else x
