"""Finds the module of a network whose derivative is wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from robaudit.engine import generator
from robaudit.engine.calls import called_again, floating, module_calls, module_label

# Step sizes relative to the input's standard deviation: for derivatives, and for rounding.
_SMALL = {torch.float64: 1e-6}
_COARSE = 3e-3  # in any other type
_LARGE = 0.5
_DRAWS = 3


@dataclass(frozen=True)
class FaultyModule:
    """A module whose derivative is wrong.

    Attributes:
        name: its name in the network; empty for the network itself.
        kind: its class.
        fault: ``flat`` if its output is piecewise constant and its gradient zero; else ``wrong``.
        straight: whether the identity could replace its backward pass: one tensor in, one of the
            same shape out.
    """

    name: str
    kind: str
    fault: Literal["flat", "wrong"]
    straight: bool

    def __str__(self) -> str:
        return module_label(self.name, self.kind)


def find_faulty_module(model: nn.Module, x: Tensor, seed: int = 0) -> FaultyModule | None:
    """The first module whose vector-Jacobian product disagrees with the changes of its output.

    Each module is run again on its own recorded input, in the order in which modules finish, so
    that a module comes after those inside it. For a random combination of its outputs and a random
    direction the gradient is compared with central differences; a module that is constant at small
    steps is judged at large ones, at which the identity's backward pass is right for a rounding.

    Args:
        model: frozen, in float64 where possible.
        x: a few images at which the network's gradient is wrong.
    """
    kind = next((p.dtype for p in model.parameters() if p.is_floating_point()), x.dtype)
    for name, module, inputs in module_calls(model, x.to(kind)):
        found = _fault(module, inputs, seed)
        if found is not None:
            return FaultyModule(name, type(module).__name__, *found)
    return None


def _fault(
    module: nn.Module, inputs: Any, seed: int
) -> tuple[Literal["flat", "wrong"], bool] | None:
    """The fault that most draws find, and whether the identity could replace the backward pass."""
    try:
        found = [_verdict(module, inputs, generator(seed, "blame", k)) for k in range(_DRAWS)]
        straight = _keeps_shape(module, inputs)
    except (Exception, SystemExit):  # a module that cannot be run alone is not judged
        return None
    faults: tuple[Literal["flat", "wrong"], ...] = ("wrong", "flat")
    for fault in faults:
        steps = [stepwise for kept, stepwise in found if kept == fault]
        if len(steps) > _DRAWS // 2:
            return fault, straight and all(steps)
    return None


def _verdict(
    module: nn.Module, inputs: Any, draw: torch.Generator
) -> tuple[Literal["flat", "wrong"] | None, bool]:
    """The fault that one draw finds, and whether the module is piecewise constant."""
    given = floating(inputs)
    if not given:
        return None, False
    weights = [_signs(out.shape, draw).to(out) for out in _outputs(module, inputs, given)]
    sizes = [float(leaf.double().std(correction=0).clamp_min(1e-3)) for leaf in given]
    ways = [
        size * _signs(leaf.shape, draw).to(leaf) for leaf, size in zip(given, sizes, strict=True)
    ]

    def value(leaves: Sequence[Tensor]) -> Tensor:
        parts = zip(_outputs(module, inputs, leaves), weights, strict=True)
        return torch.stack([(out * weight).double().sum() for out, weight in parts]).sum()

    def difference(step: float) -> tuple[float, float]:
        """The central difference, and the distance of the middle from the mean of the sides."""
        with torch.no_grad():
            ahead, behind = (
                value([leaf + side * step * way for leaf, way in zip(given, ways, strict=True)])
                for side in (1, -1)
            )
        middle = 2 * found.detach()
        return float(ahead - behind) / (2 * step), abs(float(ahead + behind - middle)) / (2 * step)

    predicted, size = 0.0, 0.0
    with torch.enable_grad():
        leaves = [leaf.clone().requires_grad_() for leaf in given]
        found = value([leaf * 1 for leaf in leaves])  # in-place modules must not touch a leaf
        if found.requires_grad:
            gradients = torch.autograd.grad(found, leaves, materialize_grads=True)
            terms = [(g * way).double() for g, way in zip(gradients, ways, strict=True)]
            predicted = float(torch.stack([term.sum() for term in terms]).sum())
            size = float(torch.stack([term.square().sum() for term in terms]).sum()) ** 0.5
    step = _SMALL.get(given[0].dtype, _COARSE)
    (whole, bent), (half, _) = difference(step), difference(step / 2)
    if whole == half == 0:
        moved, _ = difference(_LARGE)
        if moved == 0:
            return None, False
        if size == 0:
            return "flat", True
        return (None if moved * predicted > 0 else "wrong"), True
    same = (0.02 if given[0].dtype == torch.float64 else 0.1) * abs(whole)
    if not (abs(whole - half) <= same and bent <= same):
        return None, False
    off = abs(whole - predicted)
    return (None if off < 0.3 * max(abs(whole), abs(predicted), 0.3 * size) else "wrong"), False


def _outputs(module: nn.Module, inputs: Any, leaves: Sequence[Tensor]) -> list[Tensor]:
    """The module's floating-point outputs with ``leaves`` in place of its floating-point inputs."""
    with sdpa_kernel(SDPBackend.MATH):
        return called_again(module, inputs, leaves)


def _keeps_shape(module: nn.Module, inputs: Any) -> bool:
    given = floating(inputs)
    with torch.no_grad():
        made = _outputs(module, inputs, [leaf.clone() for leaf in given])
    return len(given) == len(made) == 1 and given[0].shape == made[0].shape


def _signs(shape: Sequence[int], draw: torch.Generator) -> Tensor:
    return torch.randint(2, tuple(shape), generator=draw) * 2 - 1
