"""Calls of a network: never with a single image, and with logits in the images' precision."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from robaudit.engine.calls import temporary
from robaudit.errors import NotMeasuredError

Forward = Callable[[Tensor], Tensor]
"""Images ``(n, c, h, w)`` in ``[0, 1]`` to logits ``(n, k)``, such as a model."""
Pull = Callable[[Tensor], Tensor]
"""A gradient of the logits ``(n, k)`` to the gradient in the images ``(n, c, h, w)``."""


def logits_of(network: Callable[[Tensor], object], x: Tensor) -> Tensor:
    """Logits ``(n, k)`` of images ``(n, c, h, w)``, in the images' floating-point type.

    A single image is passed twice and the second row of logits is dropped, because some networks
    squeeze the batch dimension of a batch of one. Logits in half precision, bfloat16 or float64 are
    converted, so that no loss is computed in them.

    Raises:
        NotMeasuredError: the output is not one row of floating-point logits per image.
    """
    given = _at_least_two(x)
    output = network(given)
    if not isinstance(output, Tensor) or output.dim() != 2 or len(output) != len(given):
        got = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise NotMeasuredError(
            f"the network's output for {len(given)} images is {got}, not logits (n, classes)",
            "An --arch factory may wrap the network so that it returns logits alone.",
        )
    if not output.is_floating_point():
        kind = str(output.dtype).removeprefix("torch.")
        raise NotMeasuredError(
            f"the network's output is {kind}, not floating-point logits",
            "An --arch factory may wrap the network so that it returns its logits before they are "
            "rounded, compared or made complex.",
        )
    logits = output.to(x.dtype)
    return logits if given is x else logits[: len(x)]


def with_pull(forward: Forward, x: Tensor) -> tuple[Tensor, Pull | None]:
    """Logits ``(n, k)``, and the function from their gradient to that in the images.

    The function is valid once, and ``None`` where the logits do not depend on the images.
    """
    with torch.enable_grad():
        leaf = x.detach().requires_grad_()
        logits = forward(leaf)
    if not logits.requires_grad:
        return logits, None
    return logits.detach(), lambda slopes: torch.autograd.grad(logits, leaf, slopes)[0]


@contextmanager
def guarded_calls(model: nn.Module) -> Iterator[None]:
    """Make every call of ``model`` behave as :func:`logits_of`, by hooks.

    An output that is not a floating-point tensor is returned unchanged. A module whose forward
    calls :func:`logits_of` itself has an attribute ``guards_calls`` and gets no hooks.
    """
    hooks = [getattr(hook, "__self__", None) for hook in model._forward_hooks.values()]
    if getattr(model, "guards_calls", False) or any(isinstance(hook, _Guard) for hook in hooks):
        yield
        return
    guard = _Guard()
    with temporary(
        model.register_forward_pre_hook(guard.before), model.register_forward_hook(guard.after)
    ):
        yield


class _Guard:
    """The two hooks of one call. Bound methods are copied together with the model."""

    def __init__(self) -> None:
        self.rows: int | None = None

    def before(self, _: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        x, *others = args
        given = _at_least_two(x)
        self.rows = None if given is x else len(x)
        return (given, *others)

    def after(self, _: nn.Module, args: tuple[Any, ...], output: object) -> object:
        if not isinstance(output, Tensor) or not output.is_floating_point():
            return output  # the caller refuses it
        logits = output.to(args[0].dtype)
        return logits if self.rows is None else logits[: self.rows]


def _at_least_two(x: Tensor) -> Tensor:
    return torch.cat([x, x]) if len(x) == 1 else x
