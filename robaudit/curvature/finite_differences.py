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
Values = dict[Derivative, Tensors]


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
            return cls((1e-6, 1e-6, 1e-7, 1e-8), 1e-3, 3e-3)
        return cls((1e-2, 1e-2, 3e-3, 3e-3), 0.1, 0.5)


def wrong_derivatives(
    outputs: Callable[[], Tensor],
    loss: Callable[[Tensor], Tensor],
    leaves: Sequence[Tensor],
    kinds: Sequence[Derivative],
) -> dict[Derivative, float | None]:
    """The relative error of each kind of derivative where it is wrong, else ``None``.

    For random directions ``v`` in the leaves: ``<dL/dw, v>`` against ``(L(w + h v) - L(w - h v)) /
    2 h``; ``J v``, by differentiating ``J^T u``, against the differences of the outputs; ``H v``
    against those of the gradients. A derivative that agrees is right. Where one does not, the
    difference at half the step is taken, too: a direction does not count where it disagrees, or the
    two sides do, as where a ReLU switches in between. A derivative is wrong where directions count
    and none of them confirms it.

    Args:
        outputs: computes the outputs from the leaves' current values.
        loss: outputs to a scalar.
        leaves: tensors that require gradients; moved in place, and back up to rounding.
        kinds: the derivatives to compare.
    """
    tolerance = Tolerance.of(leaves[0].dtype)
    found: dict[Derivative, list[float]] = {kind: [] for kind in kinds}  # without confirmed ones
    for attempt, step in enumerate(tolerance.steps):
        draw = generator(0, "derivative", attempt)
        # Every other draw keeps vectors fixed: zero biases are at a kink of what reads only them.
        v = [_direction(leaf.detach(), draw, bool(attempt % 2)) for leaf in leaves]
        own, middle = _derivatives(outputs, loss, leaves, v, list(found))
        whole = _differences(outputs, loss, leaves, v, step, middle)
        for kind, mine in own.items():
            error = _relative_error(mine, whole[kind], None, tolerance.same)
            if error is not None and error <= tolerance.same:
                del found[kind], middle[kind]
        half = _differences(outputs, loss, leaves, v, step / 2, middle)
        for kind in half:
            error = _relative_error(own[kind], whole[kind], half[kind], tolerance.same)
            if error is None:
                continue
            if error <= tolerance.off:
                del found[kind]
            else:
                found[kind].append(error)
        if all(len(found[kind]) > 1 for kind in middle if kind in found):
            break
    return {kind: min(found.get(kind, ()), default=None) for kind in kinds}


def _direction(tensor: Tensor, draw: torch.Generator, fixed_vectors: bool) -> Tensor:
    """Random, with the norm of the tensor itself; zero for a vector that is to stay fixed."""
    if fixed_vectors and tensor.dim() < 2:
        return torch.zeros_like(tensor)
    v: Tensor = torch.randn(tensor.shape, generator=draw).to(tensor)
    return v.mul_(tensor.norm().clamp_min(1e-2) / v.norm().clamp_min(1e-12))


def _derivatives(
    outputs: Callable[[], Tensor],
    loss: Callable[[Tensor], Tensor],
    leaves: Sequence[Tensor],
    v: Tensors,
    kinds: Sequence[Derivative],
) -> tuple[Values, Values]:
    """``<g, v>``, ``J v`` and ``H v`` by automatic differentiation, and what they differentiate.

    Nothing where the outputs do not depend on the leaves, and only ``<g, v>`` where there is no
    second derivative.
    """
    with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
        z = outputs()
        if not z.requires_grad:
            return {}, {}
        value, bent = loss(z), "hessian" in kinds
        gradients = torch.autograd.grad(
            value,
            leaves,
            retain_graph=list(kinds) != ["gradient"],
            create_graph=bent,
            materialize_grads=True,
        )
        slope = torch.stack([(g * d).sum() for g, d in zip(gradients, v, strict=True)]).sum()
        found: Values = {"gradient": [slope.detach()]}
        try:
            if "gauss-newton" in kinds:
                u = torch.zeros_like(z, requires_grad=True)
                back = torch.autograd.grad(z, leaves, u, create_graph=True, materialize_grads=True)
                found["gauss-newton"] = list(along(back, v, [u]))
            if bent:
                found["hessian"] = list(along(gradients, v, leaves))
        except RuntimeError as error:  # there is no second derivative, which is reported elsewhere
            if not is_foreign(error):
                raise
    middle: Values = {
        "gradient": [value.detach()],
        "gauss-newton": [z.detach()],
        "hessian": [g.detach() for g in gradients],
    }
    shared = [kind for kind in kinds if kind in found]
    return {kind: found[kind] for kind in shared}, {kind: middle[kind] for kind in shared}


def _differences(
    outputs: Callable[[], Tensor],
    loss: Callable[[Tensor], Tensor],
    leaves: Sequence[Tensor],
    v: Tensors,
    step: float,
    middle: Values,
) -> dict[Derivative, list[tuple[Tensor, Tensor]]]:
    """Central differences, and the distance of the middle from the sides' mean."""
    if not middle:
        return {}

    def moved(by: float) -> None:
        with torch.no_grad():
            for leaf, direction in zip(leaves, v, strict=True):
                leaf.add_(direction, alpha=by)

    def values() -> Values:
        with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
            z = outputs()
            value, gradients = loss(z), list[Tensor]()
            if "hessian" in middle:
                gradients = list(torch.autograd.grad(value, leaves, materialize_grads=True))
        return {"gradient": [value.detach()], "gauss-newton": [z.detach()], "hessian": gradients}

    moved(step)
    ahead = values()
    moved(-2 * step)
    behind = values()
    moved(step)
    return {
        kind: [
            ((a - b) / (2 * step), (a + b - 2 * c) / (2 * step))
            for a, b, c in zip(ahead[kind], behind[kind], centre, strict=True)
        ]
        for kind, centre in middle.items()
    }


def _relative_error(
    own: Sequence[Tensor],
    whole: Sequence[tuple[Tensor, Tensor]],
    half: Sequence[tuple[Tensor, Tensor]] | None,
    same: float,
) -> float | None:
    """The largest over the tensors whose differences agree and are not negligible.

    Without differences at half the step: ``None`` unless the sides agree in all these tensors.
    """
    sizes = [max(float(a.norm()), float(b.norm())) for a, (b, _) in zip(own, whole, strict=True)]
    least = 1e-3 * max(sizes)
    errors = []
    for k, size in enumerate(sizes):
        if size > least:
            difference, bent = whole[k]
            agree = float(bent.norm()) <= same * size
            if half is not None:
                agree = agree and float((difference - half[k][0]).norm()) <= same * size
            elif not agree:
                return None
            if agree:
                errors.append(float((own[k] - difference).norm()) / size)
    return max(errors, default=None)
