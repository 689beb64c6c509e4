"""Which module of a network has a derivative that is not one of what it computes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._pytree import tree_leaves, tree_map

from robaudit.engine import generator
from robaudit.engine.calls import as_leaves, module_calls
from robaudit.engine.raised import is_foreign

_STEPS = {torch.float64: 1e-6}
_COARSE = 1e-2  # in any other type
_DRAWS = 3


def lying_module(model: nn.Module, x: Tensor, *, first: bool) -> str | None:
    """Name and class of the first module whose gradient, or gradient's gradient, is another's.

    Every module is run again on its own recorded input, in the order in which they finish, so that
    a module comes after those inside it. For ``f = <c, z> + |z|^2 / 2`` of its outputs ``z`` and a
    random direction in its inputs and parameters, the derivative is held against central
    differences of ``f``, or of its gradient.

    Args:
        first: of the gradient; else of the second derivative.
    """
    for name, module, inputs in module_calls(model, x):
        try:
            leaves = as_leaves(inputs)
            lies = sum(_lies(module, leaves, first, draw) for draw in range(_DRAWS))
        except BaseException as error:
            if not is_foreign(error):
                raise
            continue  # what cannot be run alone is not judged
        if lies > _DRAWS // 2:
            kind = type(module).__name__
            return f"module {name!r} ({kind})" if name else f"the forward of {kind}"
    return None


def _lies(module: nn.Module, inputs: Any, first: bool, attempt: int) -> bool:
    draw = generator(0, "liars", attempt)
    given = [leaf.detach() for leaf in tree_leaves(inputs) if _floating(leaf)]
    named = {n: p.detach() for n, p in module.named_parameters() if p.is_floating_point()}
    points = [*given, *named.values()]
    if not points:
        return False
    ways = []
    for point in points:
        v = torch.randn(point.shape, generator=draw).to(point)
        ways.append(v * (point.norm().clamp_min(1e-2) / v.norm().clamp_min(1e-12)))
    weights: list[Tensor] = []

    def value(tensors: list[Tensor]) -> Tensor:
        queue = iter(tensors[: len(given)])
        # Times one, since in-place modules must not overwrite a leaf.
        args, kwargs = tree_map(lambda v: next(queue) * 1 if _floating(v) else v, inputs)
        own = dict(zip(named, tensors[len(given) :], strict=True))
        with sdpa_kernel(SDPBackend.MATH):
            out = torch.func.functional_call(module, own, args, kwargs)
        outs = [one for one in tree_leaves(out) if _floating(one)]
        if not weights:
            weights.extend(torch.randn(one.shape, generator=draw).to(one) for one in outs)
        parts = zip(outs, weights, strict=True)
        return torch.stack([(w * z + z * z / 2).sum() for z, w in parts]).sum()

    def gradient(side: float, *, graph: bool = False) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        with torch.enable_grad():
            leaves = [
                (point + side * way).requires_grad_()
                for point, way in zip(points, ways, strict=True)
            ]
            f = value(leaves)
            if not f.requires_grad:
                return f.detach(), [torch.zeros_like(leaf) for leaf in leaves], leaves
            found = torch.autograd.grad(f, leaves, create_graph=graph, materialize_grads=True)
        return f.detach(), list(found), leaves

    def difference(step: float) -> Tensor:
        (ahead, after, _), (behind, before, _) = gradient(step), gradient(-step)
        if first:
            return ((ahead - behind) / (2 * step)).reshape(1)
        return _flat([(a - b) / (2 * step) for a, b in zip(after, before, strict=True)])

    same, off = (1e-3, 1e-2) if points[0].dtype == torch.float64 else (0.1, 0.5)
    step = _STEPS.get(points[0].dtype, _COARSE)
    whole, half = difference(step), difference(step / 2)
    middle, slopes, leaves = gradient(0.0, graph=not first)
    if first:  # at a kink there are two slopes, and the one that is given is not wrong
        ahead, _, _ = gradient(step)
        if float(((ahead - middle) / step - whole).abs()) > same * float(whole.abs()):
            return False
    with torch.enable_grad():
        along = torch.stack([(g * w).sum() for g, w in zip(slopes, ways, strict=True)]).sum()
    if first:
        told = along.detach().reshape(1)
    elif along.requires_grad:
        told = _flat(torch.autograd.grad(along, leaves, materialize_grads=True))
    else:
        told = torch.zeros_like(whole)
    size = max(float(told.norm()), float(whole.norm()))
    if not bool(whole.isfinite().all()) or float((whole - half).norm()) > same * size:
        return False
    return size > 0 and not float((told - whole).norm()) <= off * size


def _flat(tensors: Any) -> Tensor:
    return torch.cat([tensor.detach().reshape(-1) for tensor in tensors])


def _floating(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()
