"""Linear bounds carried backward through a network (CROWN)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from robaudit.certified.hull import Upper
from robaudit.certified.nodes import Graph
from robaudit.certified.planes import PartlyOpen, Planes
from robaudit.certified.regions import Region

Multipliers = Mapping[int, tuple[Tensor, Tensor]]
"""By node, positions ``(u,)`` in the flattened node and signed multipliers ``(p, u)`` there."""

# The sums of slack are sums of positive terms; this covers their own rounding.
_COVER = 1.02


@dataclass(frozen=True)
class Bounds:
    """What is known of a network's values over the regions of ``b`` images.

    Attributes:
        graph: the network.
        region: the inputs.
        lower, upper: by node, bounds of its values, ``(b, *shape)``.
        planes: by activation node, its linear bounds.
        error: by node, how far rounding can move its value, and what follows for a coefficient of
            it: a linear form with coefficients ``a`` loses ``sum |a| error``.
    """

    graph: Graph
    region: Region
    lower: Mapping[int, Tensor]
    upper: Mapping[int, Tensor]
    planes: Mapping[int, Planes]
    error: Mapping[int, Tensor]

    def rows(self, rows: Tensor | slice) -> Bounds:
        """The bounds of some images."""
        return Bounds(
            self.graph,
            self.region.rows(rows),
            {k: part[rows] for k, part in self.lower.items()},
            {k: part[rows] for k, part in self.upper.items()},
            {k: plane.rows(rows) for k, plane in self.planes.items()},
            {k: part[rows] for k, part in self.error.items()},
        )

    def to(self, graph: Graph, dtype: torch.dtype) -> Bounds:
        """The bounds as numbers of another type, for searches; ``graph`` of the same type."""
        return Bounds(
            graph,
            self.region.to(dtype),
            {k: part.to(dtype) for k, part in self.lower.items()},
            {k: part.to(dtype) for k, part in self.upper.items()},
            {k: plane.to(dtype) for k, plane in self.planes.items()},
            {k: part.to(dtype) for k, part in self.error.items()},
        )


def lower_bound(
    bounds: Bounds,
    form: Mapping[int, Tensor],
    *,
    planes: Mapping[int, Planes | PartlyOpen] | None = None,
    uppers: Mapping[int, Upper] | None = None,
    multipliers: Multipliers | None = None,
    sound: bool = True,
) -> Tensor:
    """Lower bounds of linear forms of nodes' values, by substituting linear bounds backward.

    The coefficients go from node to node towards the input: an affine map ``W z + b`` turns ``a``
    into ``a W``; an activation replaces positive coefficients by its lower plane and negative ones
    by its upper one. What is left is a linear form of the input, whose minimum over the region is
    known. On the way the form's minimum over the known bounds of each node is a bound too, and the
    largest is returned: for networks trained with interval bounds it is often the last hidden
    node's.

    Rounding: see :func:`robaudit.certified.propagation.rounding`. Each node's error enters as a
    disturbance of its value, so that the result holds for the network in exact arithmetic, for the
    network run in float32 with sums in any order, and in spite of the rounding made here.

    Args:
        bounds: of ``p`` images, or of one for all.
        form: by node, coefficients of its values, ``(p, *shape)``.
        planes: in place of those of ``bounds``.
        uppers: by ReLU, upper bounds of some elements in place of their upper planes.
        multipliers: Lagrange multipliers of constraints ``m z >= 0`` on elements of nodes.
        sound: subtract the slack for rounding; without it the result is an estimate.

    Returns: ``(p,)``, differentiable in the planes and multipliers.

    Source: Zhang et al., NeurIPS 2018; the multipliers: Wang et al., "Beta-CROWN", NeurIPS 2021.
    """
    used: Mapping[int, Planes | PartlyOpen] = planes or bounds.planes
    multipliers = multipliers or {}
    coefficients = dict(form)
    node = max(form)
    total = form[node].flatten(1).new_zeros(len(form[node]))
    slack = torch.zeros_like(total)
    best = torch.full_like(total, -torch.inf)
    for k in range(node, 0, -1):
        if k not in coefficients:
            continue
        a = coefficients.pop(k)
        if k in multipliers:
            position, amount = multipliers[k]
            a = a.flatten(1).index_add(1, position, -amount).view_as(a)
        if sound:
            slack = slack + (a.abs() * bounds.error[k]).flatten(1).sum(1)
            if not coefficients:
                ends = a.clamp(min=0) * bounds.lower[k] + a.clamp(max=0) * bounds.upper[k]
                best = torch.maximum(best, proven(total + ends.flatten(1).sum(1) - _COVER * slack))
        step = bounds.graph.nodes[k]
        if step.operator is None:
            if uppers and k in uppers:
                a, direct, shift, lost = uppers[k].through(a)
                total, slack = total + shift, slack + lost if sound else slack
                direct = direct.view(-1, *bounds.graph.nodes[0].shape)
                coefficients[0] = coefficients[0] + direct if 0 in coefficients else direct
            below, shift = used[k].through(a)
            total = total + shift
            passed: tuple[Tensor, ...] = (below,)
        else:
            constant = step.operator.constant()
            if constant is not None:
                total = total + (a * constant).flatten(1).sum(1)
            passed = step.operator.adjoint(a)
        for source, part in zip(step.inputs, passed, strict=True):
            coefficients[source] = coefficients[source] + part if source in coefficients else part
    if 0 not in coefficients:  # a constant network
        total = total - _COVER * slack
    else:
        a = coefficients[0]
        if sound:
            slack = slack + (a.abs() * bounds.error[0]).flatten(1).sum(1)
        total = total + bounds.region.minimum(a) - _COVER * slack
    return torch.maximum(best, proven(total))


def proven(bound: Tensor) -> Tensor:
    """Lower bounds, ``-inf`` where they overflowed or are no numbers."""
    return torch.where(bound.isfinite(), bound, -torch.inf)
