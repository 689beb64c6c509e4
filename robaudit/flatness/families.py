"""Families of networks over one or two coordinates: what a landscape is a picture of."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from robaudit.engine import effective
from robaudit.engine.arguments import checked
from robaudit.errors import UsageError
from robaudit.flatness.weights import Weights

# The tensors that a network has at a point, by name; those that are not named stay.
Family = Callable[[Sequence[float]], Weights]


@checked
def around(model: nn.Module, *directions: Weights) -> Family:
    """``w + s_1 nu_1 + s_2 nu_2 + ...``; at the origin the network itself, bit for bit."""
    own = dict(effective(model).named_parameters())

    def at(point: Sequence[float]) -> Weights:
        moved: Weights = {}
        for s, direction in zip(point, directions, strict=True):
            for name, nu in direction.items():
                moved[name] = moved.get(name, own[name].detach()) + s * nu
        return moved

    return at


@checked
def between(first: nn.Module, *others: nn.Module) -> Family:
    """``(1 - s_1 - s_2 - ...) w + s_1 w_1 + s_2 w_2 + ...`` of networks of one architecture.

    At the origin and where one coordinate is 1 and the others 0 it is a network itself, bit for
    bit. All floating-point parameters and buffers take part, batch norm's running statistics too;
    a running variance stays at or above the lowest of the networks', where beyond them it would
    become negative. Of parametrised and pruned modules the weights in effect take part.

    Raises:
        UsageError: the networks differ in more than their numbers.
    """
    first, *others_plain = (effective(model) for model in (first, *others))
    for other in others_plain:
        _check_same(first, other)
    states = [_numbers(model) for model in (first, *others_plain)]
    variances = {
        f"{name}.running_var".removeprefix(".")
        for name, module in first.named_modules()
        if isinstance(module, _NormBase)
    }

    def at(point: Sequence[float]) -> Weights:
        shares = (1 - sum(point), *point)
        mixed: Weights = {}
        for name in states[0]:
            parts = [state[name].to(states[0][name]) for state in states]
            mixed[name] = torch.stack([c * w for c, w in zip(shares, parts, strict=True)]).sum(0)
            if name in variances:
                mixed[name] = mixed[name].maximum(torch.stack(parts).amin(0))
        return mixed

    return at


def _numbers(model: nn.Module) -> dict[str, Tensor]:
    tensors = [*model.named_parameters(), *model.named_buffers()]
    return {name: tensor.detach() for name, tensor in tensors if tensor.is_floating_point()}


def _check_same(first: nn.Module, other: nn.Module) -> None:
    ours, theirs = _numbers(first), _numbers(other)
    same_shapes = {name: w.shape for name, w in ours.items()} == {
        name: w.shape for name, w in theirs.items()
    }
    kinds = [[type(module) for module in model.modules()] for model in (first, other)]
    if not same_shapes or kinds[0] != kinds[1]:
        raise UsageError(
            "there is no line between networks of different architectures",
            "Give checkpoints of one architecture, or --compare, each in directions of its own.",
        )
