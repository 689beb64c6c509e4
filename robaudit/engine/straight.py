"""Straight-through gradients: the backward pass of the identity through modules that step."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from robaudit.engine.door import through
from robaudit.errors import UsageError


class StraightThrough(nn.Module):
    """A network with the backward pass of the identity through some of its modules.

    Its values are the network's own, bit for bit.
    """

    has_door = True

    def __init__(self, network: nn.Module, names: Sequence[str]) -> None:
        super().__init__()
        self.network = network
        self.names = tuple(names)
        self.origin = getattr(network, "origin", None)

    def forward(self, x: Tensor) -> Tensor:
        inner = _author(self.network)
        hooks = [
            inner.get_submodule(name).register_forward_hook(_hook(name)) for name in self.names
        ]
        try:
            logits = through(self.network, x)
        finally:
            for hook in hooks:
                hook.remove()
        return logits


def straight_through(model: nn.Module, names: Sequence[str]) -> nn.Module:
    """The model with the backward pass of the identity through the modules named.

    For networks that round, quantise or threshold: an attack that knows of the step follows the
    gradient that would be there without it. The values, and so all verdicts, stay the model's own.

    Args:
        names: as the network's author knows them (``model.named_modules()``); each takes one tensor
            to one of the same shape.

    Raises:
        UsageError: there is no such module; or, when the model is run, its shapes differ.

    Source: Bengio, Léonard & Courville, "Estimating or propagating gradients through stochastic
    neurons", 2013; as an attack (BPDA) Athalye, Carlini & Wagner, "Obfuscated gradients give a
    false sense of security", ICML 2018.

    >>> step = nn.Threshold(0.5, 0.0)
    >>> x = torch.full((1, 4), 0.2, requires_grad=True)
    >>> straight_through(nn.Sequential(step, nn.Linear(4, 2)), ["0"])(x).sum().backward()
    >>> bool((x.grad != 0).any())
    True
    """
    if not names:
        return model
    known = [name for name, _ in _author(model).named_modules() if name]
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            guess = f": did you mean {near[0]!r}?" if near else ""
            raise UsageError(
                f"the network has no module {name!r}{guess}",
                f"Its modules: {', '.join(known[:12]) or 'none; make the step a module'}.",
            )
    return StraightThrough(model, names)


def _author(model: nn.Module) -> nn.Module:
    """The network as its author wrote it: inside a classifier it is ``network``."""
    inner = getattr(model, "network", None)
    return inner if hasattr(model, "normalization") and isinstance(inner, nn.Module) else model


def _hook(name: str) -> Any:
    def straightened(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> Any:
        entered = inputs[0] if inputs else None
        if not isinstance(entered, Tensor) or not isinstance(output, Tensor):
            raise UsageError(f"module {name!r} does not take one tensor to one tensor", _ADVICE)
        if entered.shape != output.shape:
            raise UsageError(
                f"module {name!r} takes {tuple(entered.shape[1:])} to {tuple(output.shape[1:])}: "
                "no identity goes through it",
                _ADVICE,
            )
        return _Identity.apply(entered, output.detach())

    return straightened


_ADVICE = "Name the module that only rounds or thresholds; make the step one if it is not."


class _Identity(torch.autograd.Function):
    """The value of the second, the gradient to the first."""

    @staticmethod
    def forward(ctx: Any, entered: Tensor, output: Tensor) -> Tensor:
        return output.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None
