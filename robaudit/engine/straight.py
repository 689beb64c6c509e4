"""Straight-through gradients: modules that round or threshold get the identity's backward pass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from robaudit.engine.calls import temporary
from robaudit.engine.logits import logits_of
from robaudit.engine.surrogate import SurrogateGradient
from robaudit.errors import UsageError, did_you_mean

_ADVICE = "Name the module that only rounds or thresholds; make the step one if it is not."


class StraightThrough(nn.Module):
    """A network in which some modules have the backward pass of the identity.

    Its values are the network's, bit for bit.
    """

    guards_calls = True

    def __init__(self, network: nn.Module, names: Sequence[str]) -> None:
        super().__init__()
        self.network = network
        self.names = tuple(names)
        self.origin = getattr(network, "origin", None)

    def forward(self, x: Tensor) -> Tensor:
        inner = as_written(self.network)
        with temporary(
            *(inner.get_submodule(name).register_forward_hook(_hook(name)) for name in self.names)
        ):
            return logits_of(self.network, x)


def straight_through(model: nn.Module, names: Sequence[str]) -> nn.Module:
    """The model with the identity's backward pass through the named modules.

    For networks that round, quantise or threshold: an attack that knows of the step follows the
    gradient that the network would have without it. The values, and so all verdicts, stay the
    model's own.

    Args:
        model: images ``(n, c, h, w)`` in [0, 1] to logits ``(n, k)``.
        names: names of modules as in ``model.named_modules()`` (of a loaded checkpoint, as in its
            own network); each maps one tensor to one of the same shape. Empty for the model itself.

    Returns:
        A module that shares the model's weights.

    Raises:
        UsageError: there is no such module; or, when the model is run, its shapes differ.

    Source: Bengio, Léonard & Courville, "Estimating or propagating gradients through stochastic
    neurons", 2013; as an attack (BPDA) Athalye, Carlini & Wagner, "Obfuscated gradients give a
    false sense of security", ICML 2018.

    >>> import torch
    >>> step = nn.Threshold(0.5, 0.0)
    >>> x = torch.full((1, 4), 0.2, requires_grad=True)
    >>> straight_through(nn.Sequential(step, nn.Linear(4, 2)), ["0"])(x).sum().backward()
    >>> bool((x.grad != 0).any())
    True
    """
    if not names:
        return model
    known = [name for name, _ in as_written(model).named_modules() if name]
    for name in names:
        if name not in known:
            raise UsageError(
                f"the network has no module {name!r}{did_you_mean(name, known)}",
                f"Its modules: {', '.join(known[:12]) or 'none; make the step a module'}.",
            )
    return StraightThrough(model, names)


def as_written(model: nn.Module) -> nn.Module:
    """The network inside a classifier; any other model itself."""
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
                "the identity's backward pass needs equal shapes",
                _ADVICE,
            )
        return SurrogateGradient.apply(entered, output.detach())

    return straightened
