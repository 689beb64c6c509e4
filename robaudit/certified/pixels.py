"""The ReLUs whose argument is an affine function of the input, as functions of its elements."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from robaudit.certified.backward import Bounds
from robaudit.certified.hull import Hull
from robaudit.certified.nodes import Graph, ancestors
from robaudit.certified.propagation import gamma

# Weights of all elements of a ReLU, and of those of open sign in one image, beyond which one plane
# of the argument has to do; and elements whose weights are computed together.
_ALL, _OPEN, _TOGETHER = 2**22, 2**17, 64


@dataclass(frozen=True)
class PixelWeights:
    """The arguments ``w x + b`` of a ReLU's ``e`` elements.

    Attributes:
        chain: the affine nodes from the ReLU's argument down to the input, without it.
        pixel, weight: ``(e, n)``: elements of the flattened input, and ``w``.
        constant: ``(e,)``, ``b``.
    """

    chain: tuple[int, ...]
    pixel: Tensor
    weight: Tensor
    constant: Tensor

    def hull(self, bounds: Bounds, position: Tensor) -> Hull | None:
        """Of the elements of open sign ``(u,)`` in one image; ``None`` if they are too many."""
        pixel, weight = self.pixel[position], self.weight[position]
        if not len(position) or weight.numel() > _OPEN:
            return None
        low, high = bounds.region.low, bounds.region.high
        ends = weight * low.flatten()[pixel], weight * high.flatten()[pixel]
        least, most = torch.minimum(*ends), torch.maximum(*ends)
        # What rounding does in the network, and in the sums here, carried through the chain.
        size, error = torch.maximum(-low, high), torch.zeros_like(low)
        terms = low.numel() + math.prod(bounds.graph.nodes[self.chain[0]].shape)
        for k in reversed(self.chain):
            operator = bounds.graph.nodes[k].operator
            assert operator is not None
            size, error = operator.magnitude(size), operator.radius(error) + bounds.error[k]
            terms = max(terms, operator.terms, operator.adjoint_terms)
        own = 4 * (len(self.chain) + 4) * gamma(terms, low.dtype)
        return Hull(
            position=position,
            pixel=pixel,
            weight=weight,
            least=least,
            width=most - least,
            high=self.constant[position] + most.sum(1),
            error=(1.01 * error + own * size).flatten()[position] + 1e-35,
            pixels=low.numel(),
        )


def pixel_weights(graph: Graph, like: Tensor) -> dict[int, PixelWeights]:
    """By ReLU, the weights of its argument, of those that are affine functions of the input.

    Args:
        like: an image, for the type and the device.
    """
    found = {}
    for k, node in enumerate(graph.nodes):
        chain = _chain(graph, node.inputs[0]) if node.kind == "relu" else None
        weights = _weights(graph, chain, like) if chain else None
        if weights is not None:
            found[k] = weights
    return found


def within_reach(
    bounds: Bounds, node: int, a: Tensor, hulls: Mapping[int, Hull]
) -> dict[int, Hull]:
    """The elements of hulls that some form of a node's value depends on.

    Args:
        a: coefficients of the forms, ``(p, *shape)``.
    """
    nodes, reach, leaves = bounds.graph.nodes, {0: torch.zeros_like(bounds.region.low)}, {}
    with torch.enable_grad():
        for k in sorted(ancestors(bounds.graph, node)):
            operator = nodes[k].operator
            if k in hulls:
                leaves[k] = reach[k] = torch.ones_like(bounds.lower[k], requires_grad=True)
            elif operator is not None:
                reach[k] = operator.radius(*(reach[i] for i in nodes[k].inputs))
            elif k:
                reach[k] = reach[nodes[k].inputs[0]]
        if not leaves:
            return {}
        total = (a.abs().sum(0) * reach[node]).sum()
        parts = torch.autograd.grad(total, list(leaves.values()), allow_unused=True)
    found = {}
    for k, part in zip(leaves, parts, strict=True):
        if part is not None and (rows := part.flatten()[hulls[k].position] > 0).any():
            found[k] = hulls[k].rows(rows)
    return found


def _chain(graph: Graph, k: int) -> tuple[int, ...] | None:
    chain = []
    while k:
        step = graph.nodes[k]
        if step.operator is None or len(step.inputs) != 1:
            return None
        chain.append(k)
        k = step.inputs[0]
    return tuple(chain)


def _weights(graph: Graph, chain: tuple[int, ...], like: Tensor) -> PixelWeights | None:
    shape = graph.nodes[chain[0]].shape
    elements, parts = math.prod(shape), []
    if elements > _ALL:
        return None
    for first in range(0, elements, _TOGETHER):
        count = min(_TOGETHER, elements - first)
        a = like.new_zeros(count, elements)
        a[torch.arange(count), torch.arange(first, first + count)] = 1
        a, constant = a.view(count, *shape), like.new_zeros(count)
        for k in chain:
            operator = graph.nodes[k].operator
            assert operator is not None
            shift = operator.constant()
            if shift is not None:
                constant = constant + (a * shift).flatten(1).sum(1)
            (a,) = operator.adjoint(a)
        whole = a.flatten(1)
        n = max(1, int((whole != 0).sum(1).max()))
        if n * elements > _ALL:
            return None
        pixel = whole.abs().topk(n, 1).indices
        parts.append((pixel, whole.gather(1, pixel), constant))
    n = max(pixel.shape[1] for pixel, _, _ in parts)
    return PixelWeights(
        chain,
        torch.cat([_wide(pixel, n) for pixel, _, _ in parts]),
        torch.cat([_wide(weight, n) for _, weight, _ in parts]),
        torch.cat([constant for _, _, constant in parts]),
    )


def _wide(rows: Tensor, n: int) -> Tensor:
    """Rows with zeros appended up to ``n`` columns."""
    return torch.nn.functional.pad(rows, (0, n - rows.shape[1]))
