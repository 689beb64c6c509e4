"""Families of networks over one or two coordinates, along which a landscape is computed."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from robaudit.engine import effective
from robaudit.engine.arguments import checked
from robaudit.errors import UsageError
from robaudit.flatness.weights import Weights

# The tensors of the network at a point, by name; tensors that are not named are unchanged.
Family = Callable[[Sequence[float]], Weights]


@checked
def around(model: nn.Module, *directions: Weights) -> Family:
    """``w + s_1 nu_1 + s_2 nu_2 + ...``: the model's weights moved along directions.

    Args:
        model: the network at the origin, which a landscape gives bit for bit there.
        directions: by parameter tensor, for example by :func:`robaudit.flatness.random_direction`.

    Returns:
        A function from coordinates ``(s_1, s_2, ...)`` to weights by name.

    >>> net = nn.Linear(1, 1, bias=False)
    >>> line = around(net, {"weight": torch.ones(1, 1)})
    >>> bool(line([2.0])["weight"] == net.weight + 2)
    True
    """
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

    At the origin, and where one coordinate is 1 and the others 0, this is one of the networks bit
    for bit. All floating-point parameters and buffers are interpolated, including the running
    statistics of batch norm; beyond the networks, where a running variance would become negative,
    it is clamped to the lowest of theirs. For parametrised and pruned modules the effective weights
    are interpolated.

    Args:
        first, others: the networks.

    Returns:
        A function from coordinates ``(s_1, s_2, ...)`` to weights and buffers by name.

    Raises:
        UsageError: the networks differ in more than the values of their tensors.

    >>> a, b = nn.Linear(1, 1), nn.Linear(1, 1)
    >>> bool(between(a, b)([1.0])["weight"] == b.weight)
    True
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
