"""Bounds of every node's values: by intervals, and where a sign is open by CROWN."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Final, Protocol

import torch
from torch import Tensor

from robaudit.certified.backward import Bounds, lower_bound
from robaudit.certified.nodes import Graph, Node
from robaudit.certified.operators import Reshape, WeightedSum
from robaudit.certified.planes import Planes, relu_planes, tanh_planes
from robaudit.certified.regions import Region

# Operations of one element beside the products that are added up: a mean's division, a batch
# normalisation's root, a plane's product.
_OTHERS = 8
# Coefficients of one piece of forms, by type of device: what a cache holds, what keeps a GPU busy.
_ELEMENTS: Final = {"cpu": 2**17, "cuda": 2**25}


def gamma(terms: int, dtype: torch.dtype) -> float:
    """``g`` such that a sum of ``terms`` products in any order errs by at most ``g sum |terms|``.

    ``terms u / (1 - terms u)`` with unit roundoff ``u``.

    Source: Higham, "Accuracy and Stability of Numerical Algorithms", 2002, sec. 3.1.
    """
    share = (terms + _OTHERS) * torch.finfo(dtype).eps / 2
    if share > 0.01:
        raise ValueError(f"{terms} terms are too many for {dtype}")
    return share / (1 - share)


def rounding(node: Node, sources: list[Tensor], size: int, dtype: torch.dtype) -> Tensor:
    """How far rounding can move an affine node's value, in the network and in our sums.

    With ``m = sum |W| |z| + |b|`` over the bounds of ``z``: the network in float32 errs by at most
    ``gamma32(terms) m``, in any order of its sums. A linear form ``a`` of the value errs by at most
    ``gamma(adjoint terms) |a| m`` where ``a W`` is computed and by ``gamma(size) |a| m`` where it
    is added up.

    Args:
        sources: the largest absolute values of the inputs, ``(b, *shape)`` each.
        size: elements of all sums that are made of the value, at most.
        dtype: of our own sums.
    """
    operator = node.operator
    assert operator is not None
    own = gamma(operator.adjoint_terms, dtype) + gamma(operator.terms, dtype) + gamma(size, dtype)
    share = gamma(operator.terms, torch.float32) + own
    return 1.01 * share * operator.magnitude(*sources) + 1e-35


def propagate(graph: Graph, region: Region, tighten: Tighten | None) -> Bounds:
    """Bounds of all nodes, in the order of the graph.

    Every node has interval bounds of its inputs' bounds. Where they leave the sign of a ReLU's
    input open, and for all inputs of a tanh, linear bounds are carried back to the input, and the
    tighter of the two is kept.

    Args:
        region: in the graph's type.
        tighten: computes lower bounds of ``sign * value`` for elements of a node, as :func:`crown`
            does; ``None`` for intervals only.
    """
    dtype = region.centre.dtype
    sizes = [math.prod(node.shape) for node in graph.nodes]
    total = max(sizes) + len(sizes)
    lower, upper = {0: region.low}, {0: region.high}
    planes: dict[int, Planes] = {}
    error = {0: torch.full_like(region.low, 3 * gamma(total, dtype))}
    bounds = Bounds(graph, region, lower, upper, planes, error)
    uses = {node.inputs[0]: node.kind for node in graph.nodes if node.kind in ("relu", "tanh")}
    for k, node in enumerate(graph.nodes):
        if node.kind == "input":
            continue
        ends = [(lower[i], upper[i]) for i in node.inputs]
        if node.operator is None:
            low, high = ends[0]
            if node.kind == "relu":
                planes[k] = relu_planes(low, high)
                lower[k], upper[k] = low.clamp(min=0), high.clamp(min=0)
                of_network = 0.0
            else:
                planes[k] = tanh_planes(low, high)
                of_network = 8 * gamma(0, torch.float32)
                lower[k], upper[k] = low.tanh() - of_network, high.tanh() + of_network
            reach = torch.maximum(-low, high).clamp(min=0)
            shift = torch.maximum(planes[k].upper_shift.abs(), planes[k].lower_shift.abs())
            error[k] = gamma(total, dtype) * (reach + shift + 1) + of_network
            continue
        error[k] = rounding(node, [torch.maximum(-lo, hi) for lo, hi in ends], total, dtype)
        middle = node.operator(*((lo + hi) / 2 for lo, hi in ends))
        radius = node.operator.radius(*((hi - lo) / 2 for lo, hi in ends)) + error[k]
        lower[k], upper[k] = middle - radius, middle + radius
        if k in uses:
            opened = (lower[k] < 0) & (upper[k] > 0)
            if uses[k] == "tanh":
                opened = torch.ones_like(opened)
            owner, element = opened.flatten(1).nonzero(as_tuple=True)
            if tighten and len(owner) and not (region.norm == "linf" and _exact(graph, k)):
                low = tighten(bounds, k, owner, element, 1)
                high = -tighten(bounds, k, owner, element, -1)
                lower[k] = _with(lower[k], owner, element, low, torch.maximum)
                upper[k] = _with(upper[k], owner, element, high, torch.minimum)
    return bounds


def _with(
    values: Tensor,
    owner: Tensor,
    element: Tensor,
    new: Tensor,
    better: Callable[[Tensor, Tensor], Tensor],
) -> Tensor:
    """A node's bounds with the better of the old and the new for some elements."""
    flat = values.flatten(1).clone()
    flat[owner, element] = better(flat[owner, element], new)
    return flat.view_as(values)


def _exact(graph: Graph, node: int) -> bool:
    """Whether interval bounds of a node are the best possible in linf: one mixing map at most."""
    mixing = 0
    while node:
        step = graph.nodes[node]
        if step.operator is None or len(step.inputs) > 1:
            return False
        mixing += not isinstance(step.operator, WeightedSum | Reshape)
        node = step.inputs[0]
    return mixing <= 1


def narrowed(bounds: Bounds, source: int, element: Tensor, low: Tensor, high: Tensor) -> Bounds:
    """One image's bounds, narrowed for elements of a ReLU's input.

    Args:
        element: ``(u,)`` positions in the flattened node.
        low, high: ``(u,)``.
    """
    lower, upper, planes = dict(bounds.lower), dict(bounds.upper), dict(bounds.planes)
    owner = torch.zeros_like(element)
    lower[source] = _with(lower[source], owner, element, low, torch.maximum)
    upper[source] = _with(upper[source], owner, element, high, torch.minimum)
    for k, node in enumerate(bounds.graph.nodes):
        if node.kind == "relu" and node.inputs[0] == source:
            planes[k] = relu_planes(lower[source], upper[source])
            lower[k], upper[k] = lower[source].clamp(min=0), upper[source].clamp(min=0)
    return replace(bounds, lower=lower, upper=upper, planes=planes)


class Tighten(Protocol):
    """Lower bounds of ``sign * value`` for elements of a node, ``(p,)``."""

    def __call__(
        self, bounds: Bounds, node: int, owner: Tensor, element: Tensor, sign: int
    ) -> Tensor: ...


def crown(bounds: Bounds, node: int, owner: Tensor, element: Tensor, sign: int) -> Tensor:
    """Lower bounds of ``sign * value`` by CROWN, in pieces that fit in memory.

    Args:
        owner, element: ``(p,)``, the image and the position in the flattened node.
    """
    found = []
    for piece in pieces(bounds, len(owner)):
        a = unit(bounds, node, element[piece], sign)
        found.append(lower_bound(of(bounds, owner[piece]), {node: a}))
    return torch.cat(found)


def unit(bounds: Bounds, node: int, element: Tensor, sign: int) -> Tensor:
    """Coefficients of single elements, ``(p, *shape)``."""
    a = bounds.region.centre.new_zeros(len(element), math.prod(bounds.graph.nodes[node].shape))
    a.scatter_(1, element[:, None], float(sign))
    return a.view(-1, *bounds.graph.nodes[node].shape)


def of(bounds: Bounds, owner: Tensor) -> Bounds:
    """The bounds of each form's image; those of the only image as they are."""
    return bounds if len(bounds.region.centre) == 1 else bounds.rows(owner)


def pieces(bounds: Bounds, p: int, least: int = 1) -> list[slice]:
    """Slices of ``p`` forms whose coefficients fit in a moderate amount of memory.

    Args:
        least: numbers that each form takes, if that is more than the coefficients of a node.
    """
    most = _ELEMENTS.get(bounds.region.centre.device.type, _ELEMENTS["cpu"])
    size = max(1, most // max(least, *(math.prod(node.shape) for node in bounds.graph.nodes)))
    return [slice(i, i + size) for i in range(0, p, size)]
