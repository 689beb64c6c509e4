"""First and second derivatives by automatic differentiation, compared with central differences."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from robaudit.curvature.products import along
from robaudit.engine import generator
from robaudit.engine.raised import is_foreign

Derivative = Literal["gradient", "gauss-newton", "hessian"]
Tensors = list[Tensor]


@dataclass(frozen=True)
class Tolerance:
    """What central differences can resolve in a floating-point type.

    Attributes:
        steps: relative to the norm of each tensor; one for every draw.
        same: relative difference up to which the differences at a step and at half of it agree.
        off: relative error of a derivative above which it is wrong.
    """

    steps: tuple[float, ...]
    same: float
    off: float

    @classmethod
    def of(cls, dtype: torch.dtype) -> Tolerance:
        if dtype == torch.float64:
            return cls((1e-6, 1e-6, 1e-7, 1e-8), 1e-3, 1e-2)
        return cls((1e-2, 1e-2, 3e-3, 3e-3), 0.1, 0.5)


def wrong_derivatives(
    outputs: Callable[[], Tensor],
    loss: Callable[[Tensor], Tensor],
    leaves: Sequence[Tensor],
) -> dict[Derivative, float | None]:
    """The relative error of each kind of derivative where it is wrong, else ``None``.

    For random directions ``v`` in the leaves: ``<dL/dw, v>`` against ``(L(w + h v) - L(w - h v)) /
    2 h``; ``J v``, by differentiating ``J^T u``, against the differences of the outputs; ``H v``
    against those of the gradients. A direction does not count where the difference at half the step
    disagrees, or the two sides do, as where a ReLU switches in between. A derivative is wrong where
    directions count and none of them confirms it.

    Args:
        outputs: computes the outputs from the leaves' current values.
        loss: outputs to a scalar.
        leaves: tensors that require gradients; moved in place.
    """
    tolerance = Tolerance.of(leaves[0].dtype)
    origin = [leaf.detach().clone() for leaf in leaves]

    def moved(moves: Tensors, step: float) -> Tensor:
        with torch.no_grad():
            for leaf, place, move in zip(leaves, origin, moves, strict=True):
                leaf.copy_(place + step * move)
        return outputs()

    found: dict[Derivative, list[float]] = {"gradient": [], "gauss-newton": [], "hessian": []}
    for attempt, step in enumerate(tolerance.steps):
        draw = generator(0, "derivative", attempt)
        # Every other draw keeps vectors fixed: zero biases are at a kink of what reads only them.
        v = [_direction(place, draw, bool(attempt % 2)) for place in origin]
        automatic = _derivatives(moved, loss, leaves, v)
        if not automatic:  # the outputs do not depend on the leaves
            break
        whole, half = _differences(moved, loss, leaves, v, (step, step / 2))
        for kind, own in automatic.items():
            error = _relative_error(own, whole[kind], half[kind], tolerance.same)
            if error is not None:
                found[kind].append(error)
        if all(
            min(errors, default=1) <= tolerance.off or len(errors) > 1 for errors in found.values()
        ):
            break
    return {
        kind: min(errors) if errors and not min(errors) <= tolerance.off else None
        for kind, errors in found.items()
    }


def _direction(tensor: Tensor, draw: torch.Generator, fixed_vectors: bool) -> Tensor:
    """Random, with the norm of the tensor itself; zero for a vector that is to stay fixed."""
    if fixed_vectors and tensor.dim() < 2:
        return torch.zeros_like(tensor)
    v = torch.randn(tensor.shape, generator=draw).to(tensor)
    found: Tensor = v * (tensor.norm().clamp_min(1e-2) / v.norm().clamp_min(1e-12))
    return found


def _derivatives(
    moved: Callable[[Tensors, float], Tensor],
    loss: Callable[[Tensor], Tensor],
    leaves: Sequence[Tensor],
    v: Tensors,
) -> dict[Derivative, list[Tensor]]:
    """``<g, v>``, ``J v`` and ``H v`` by automatic differentiation."""
    found: dict[Derivative, list[Tensor]] = {}
    with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
        z = moved(v, 0.0)
        if not z.requires_grad:
            return {}
        gradients = torch.autograd.grad(loss(z), leaves, create_graph=True, materialize_grads=True)
        slope = torch.stack([(g * d).sum() for g, d in zip(gradients, v, strict=True)]).sum()
        found["gradient"] = [slope.detach()]
        try:
            u = torch.zeros_like(z, requires_grad=True)
            back = torch.autograd.grad(z, leaves, u, create_graph=True, materialize_grads=True)
            found["gauss-newton"] = list(along(back, v, [u]))
            found["hessian"] = list(along(gradients, v, leaves))
        except RuntimeError as error:  # there is no second derivative, which is reported elsewhere
            if not is_foreign(error):
                raise
    return found


def _differences(
    moved: Callable[[Tensors, float], Tensor],
    loss: Callable[[Tensor], Tensor],
    leaves: Sequence[Tensor],
    v: Tensors,
    steps: Sequence[float],
) -> list[dict[Derivative, list[tuple[Tensor, Tensor]]]]:
    """Central differences for each step, and the distance of the middle from the sides' mean."""
    kinds: tuple[Derivative, ...] = ("gradient", "gauss-newton", "hessian")

    def at(step: float) -> dict[Derivative, list[Tensor]]:
        with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
            z = moved(v, step)
            value = loss(z)
            gradients = torch.autograd.grad(value, leaves, materialize_grads=True)
        parts = [value.detach()], [z.detach()], list(gradients)
        return dict(zip(kinds, parts, strict=True))

    middle = at(0.0)
    found = []
    for step in steps:
        ahead, behind = at(step), at(-step)
        found.append(
            {
                kind: [
                    ((a - b) / (2 * step), (a + b - 2 * c) / (2 * step))
                    for a, b, c in zip(ahead[kind], behind[kind], middle[kind], strict=True)
                ]
                for kind in kinds
            }
        )
    return found


def _relative_error(
    own: Sequence[Tensor],
    whole: Sequence[tuple[Tensor, Tensor]],
    half: Sequence[tuple[Tensor, Tensor]],
    same: float,
) -> float | None:
    """The largest over the tensors whose differences agree and are not negligible."""
    sizes = [max(float(a.norm()), float(b.norm())) for a, (b, _) in zip(own, whole, strict=True)]
    least = 1e-3 * max(sizes)
    errors = [
        float((a - b).norm()) / size
        for a, (b, bent), (c, _), size in zip(own, whole, half, sizes, strict=True)
        if size > least
        and float((b - c).norm()) <= same * size
        and float(bent.norm()) <= same * size
    ]
    return max(errors, default=None)
