"""Search for the slopes and multipliers that raise the bounds of one image (alpha- and beta-CROWN).

A search runs in float32 and estimates; what it finds is then evaluated soundly, in float64.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

import torch
from torch import Tensor

from robaudit.certified.adam import Adam
from robaudit.certified.backward import Bounds, Multipliers, lower_bound, proven
from robaudit.certified.hull import Hull, Upper
from robaudit.certified.nodes import Graph, ancestors
from robaudit.certified.pixels import PixelWeights, within_reach
from robaudit.certified.planes import PartlyOpen, relu_planes, tanh_planes

# The margin that is assumed not to be exceeded.
CEILING: Final = 1e-4
# Steps after which the forms that are certified leave the search.
_ROUND: Final = 4


@dataclass(frozen=True)
class Choices:
    """What is chosen for each of ``p`` forms, in the ``u`` elements of open sign of every node.

    Attributes:
        slopes: by activation node, ``(p, u)``: of the lower plane of a ReLU, and the shares of its
            hull ``(p, u', n)`` if it has one; of the lower and the upper plane of a tanh.
        signs: by the input node of a ReLU, ``(p, u)`` int8: the sign that the element is assumed to
            have in this branch, or 0.
        multipliers: likewise, ``(p, u)``: Lagrange multipliers of the assumed signs, at least 0. By
            the last node, ``(p, 1)``: of the assumed margin.
    """

    slopes: Mapping[int, tuple[Tensor, ...]]
    signs: Mapping[int, Tensor]
    multipliers: Mapping[int, Tensor]

    def rows(self, rows: Tensor | slice) -> Choices:
        return Choices(
            {k: tuple(part[rows] for part in parts) for k, parts in self.slopes.items()},
            {k: part[rows] for k, part in self.signs.items()},
            {k: part[rows] for k, part in self.multipliers.items()},
        )

    def with_shares(self, other: Choices) -> Choices:
        """With another's shares of hulls, where these have none."""
        slopes = {k: parts + other.slopes[k][len(parts) :] for k, parts in self.slopes.items()}
        return replace(self, slopes=slopes)

    def without_shares(self) -> Choices:
        """The choices without shares of hulls, which take much memory."""
        slopes = {
            k: tuple(part for part in parts if part.dim() == 2) for k, parts in self.slopes.items()
        }
        return replace(self, slopes=slopes)

    def double(self) -> Choices:
        return Choices(
            {k: tuple(part.double() for part in parts) for k, parts in self.slopes.items()},
            self.signs,
            {k: part.double() for k, part in self.multipliers.items()},
        )


def joined(parts: list[Choices]) -> Choices:
    """The rows of several, one after the other."""
    first = parts[0]
    return Choices(
        {
            k: tuple(torch.cat([part.slopes[k][i] for part in parts]) for i in range(len(slopes)))
            for k, slopes in first.slopes.items()
        },
        {k: torch.cat([part.signs[k] for part in parts]) for k in first.signs},
        {k: torch.cat([part.multipliers[k] for part in parts]) for k in first.multipliers},
    )


@dataclass(frozen=True)
class Search:
    """The activations before a node, on one image.

    Attributes:
        bounds: of one image.
        node: whose values the forms are of.
        positions: by activation node, its elements whose planes can be chosen, ``(u,)``.
        fixed: by activation node, the slope of the other elements, ``(1, *shape)``.
        margin: ``(1, k)``, coefficients of a margin that is assumed to be at most ``CEILING``:
            bounds hold for inputs of which that is true. ``None`` without an assumption.
        hulls: by ReLU, better upper bounds of some elements of open sign.
    """

    bounds: Bounds
    node: int
    positions: Mapping[int, Tensor]
    fixed: Mapping[int, Tensor]
    margin: Tensor | None = None
    hulls: Mapping[int, Hull] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        bounds: Bounds,
        node: int,
        weights: Mapping[int, PixelWeights],
        margin: Tensor | None = None,
    ) -> Search:
        """The search before a node, with the bounds of one image.

        Args:
            weights: by ReLU, from which hulls are made.
        """
        positions, fixed = {}, {}
        last = len(bounds.graph.nodes) - 1
        for k in ancestors(bounds.graph, node if margin is None else last):
            if bounds.graph.nodes[k].kind not in ("relu", "tanh"):
                continue
            source = bounds.graph.nodes[k].inputs[0]
            low, high = bounds.lower[source], bounds.upper[source]
            if bounds.graph.nodes[k].kind == "relu":
                opened = (low < 0) & (high > 0)
            else:
                opened = torch.ones_like(low, dtype=torch.bool)
            positions[k] = opened.flatten().nonzero()[:, 0]
            fixed[k] = (low >= 0).to(low.dtype)
        hulls = {k: weights[k].hull(bounds, positions[k]) for k in positions if k in weights}
        found = {k: hull for k, hull in hulls.items() if hull is not None}
        return cls(bounds, node, positions, fixed, margin, found)

    def to(self, graph: Graph, dtype: torch.dtype) -> Search:
        """The same search in another type; ``graph`` of that type."""
        fixed = {k: part.to(dtype) for k, part in self.fixed.items()}
        margin = None if self.margin is None else self.margin.to(dtype)
        hulls = {k: hull.to(dtype) for k, hull in self.hulls.items()}
        bounds = self.bounds.to(graph, dtype)
        return replace(self, bounds=bounds, fixed=fixed, margin=margin, hulls=hulls)

    def seen(self, a: Tensor) -> Search:
        """The same search, with those elements of the hulls that some form ``a`` depends on."""
        if self.margin is not None or not self.hulls:
            return self
        return replace(self, hulls=within_reach(self.bounds, self.node, a, self.hulls))

    @property
    def relus(self) -> dict[int, int]:
        """The ReLUs with elements of open sign, by their input nodes."""
        nodes = self.bounds.graph.nodes
        return {
            nodes[k].inputs[0]: k
            for k, position in self.positions.items()
            if nodes[k].kind == "relu" and len(position)
        }

    def start(self, p: int) -> Choices:
        """The slopes of CROWN, for ``p`` forms; no sign is assumed."""
        slopes: dict[int, tuple[Tensor, ...]] = {}
        for k, position in self.positions.items():
            plane = self.bounds.planes[k]
            kept = [plane.lower_slope, plane.upper_slope]
            if self.bounds.graph.nodes[k].kind == "relu":
                kept = kept[:1]
            slopes[k] = tuple(part.flatten()[position].expand(p, -1).clone() for part in kept)
            if k in self.hulls:
                slopes[k] += (self.hulls[k].start(p),)
        if self.margin is None:
            return Choices(slopes, {}, {})
        return Choices(slopes, {}, {self._last: self.margin.new_zeros(p, 1)})

    @property
    def _last(self) -> int:
        return len(self.bounds.graph.nodes) - 1

    def planes(self, choices: Choices) -> dict[int, PartlyOpen]:
        """The planes that the choices give."""
        made = {}
        for k, position in self.positions.items():
            low, high = self.range(k, choices)
            slopes = choices.slopes[k]
            if self.bounds.graph.nodes[k].kind == "relu":
                opened = relu_planes(low, high, slopes[0])
            else:
                opened = tanh_planes(low, high, (slopes[0], slopes[1]))
            made[k] = PartlyOpen(self.fixed[k], position, opened)
        return made

    def range(self, activation: int, choices: Choices) -> tuple[Tensor, Tensor]:
        """Bounds of an activation's input in the chosen elements, ``(p, u)`` or ``(u,)``."""
        source = self.bounds.graph.nodes[activation].inputs[0]
        position = self.positions[activation]
        low = self.bounds.lower[source].flatten()[position]
        high = self.bounds.upper[source].flatten()[position]
        signs = choices.signs.get(source)
        if signs is None:
            return low, high
        return torch.where(signs > 0, 0, low), torch.where(signs < 0, 0, high)

    def uppers(self, choices: Choices) -> dict[int, Upper]:
        """The upper bounds that the choices give where there are hulls."""
        made = {}
        for k, hull in self.hulls.items():
            signs = choices.signs.get(self.bounds.graph.nodes[k].inputs[0])
            made[k] = Upper(hull, choices.slopes[k][1], None if signs is None else signs == 0)
        return made

    def multipliers(self, choices: Choices) -> Multipliers:
        """Of the assumed margin, ``-margin >= 0`` but for the ceiling, or of the assumed signs."""
        if self.margin is not None:
            classes = torch.arange(self.margin.shape[1], device=self.margin.device)
            return {self._last: (classes, -choices.multipliers[self._last] * self.margin)}
        return {
            source: (self.positions[k], choices.multipliers[source] * choices.signs[source])
            for source, k in self.relus.items()
            if source in choices.multipliers
        }

    def value(
        self,
        a: Tensor,
        choices: Choices,
        planes: Mapping[int, PartlyOpen] | None = None,
        sound: bool = False,
    ) -> Tensor:
        """Lower bounds ``(p,)`` of the forms with these choices, or with planes and no hulls."""
        form = {self.node: a}
        if self.margin is not None:
            form[self._last] = a.new_zeros(len(a), self.margin.shape[1])
        bound = lower_bound(
            self.bounds,
            form,
            planes=self.planes(choices) if planes is None else planes,
            uppers=self.uppers(choices) if planes is None else None,
            multipliers=self.multipliers(choices),
            sound=sound,
        )
        if self.margin is None:
            return bound
        return proven(bound - choices.multipliers[self._last][:, 0] * CEILING)

    def raised(
        self, a: Tensor, choices: Choices, steps: int, enough: float = torch.inf
    ) -> tuple[Tensor, Choices]:
        """Choices that raise the bounds, by Adam with a decaying rate.

        Args:
            a: coefficients of the forms, ``(p, *shape)``.
            choices: where the search begins.
            steps: at most.
            enough: a form whose estimated bound is larger leaves the search.

        Returns: estimated bounds ``(p,)``, and the choices that gave them.

        Source: Xu et al., "Fast and complete", ICLR 2021; Wang et al., "Beta-CROWN", NeurIPS 2021.
        """
        kept = [part.clone() for part in _flat(choices)]
        if not any(part.numel() for part in kept):
            return self.value(a, choices), choices
        best = torch.full_like(a.flatten(1)[:, 0], -torch.inf)
        at = torch.arange(len(a), device=a.device)
        ascent = Adam.of([part.clone() for part in kept], len(choices.multipliers))
        for step in range(steps + 1):
            now = _like(choices.rows(at) if len(at) < len(a) else choices, ascent.values)
            with torch.enable_grad():
                for part in ascent.values:
                    part.requires_grad_(step < steps)
                value = self.value(a[at], now)
                gradient = None
                if step < steps:
                    gradient = torch.autograd.grad(value.sum(), ascent.values)
            for part in ascent.values:
                part.requires_grad_(False)
            value = value.detach()
            better = value > best[at]
            rows = at[better]
            best[rows] = value[better]
            for whole, part in zip(kept, ascent.values, strict=True):
                whole[rows] = part[better]
            if gradient is None:
                break
            ascent.climb(gradient, step)
            if step % _ROUND == _ROUND - 1:
                left = best[at] <= enough
                if not left.any():
                    break
                if not left.all():
                    at, ascent = at[left], ascent.rows(left)
        return best, _like(choices, kept)


def _flat(choices: Choices) -> list[Tensor]:
    slopes = [part for parts in choices.slopes.values() for part in parts]
    return [*slopes, *choices.multipliers.values()]


def _like(choices: Choices, flat: list[Tensor]) -> Choices:
    """The choices with other slopes and multipliers, in the order of :func:`_flat`."""
    parts = iter(flat)
    slopes = {k: tuple(next(parts) for _ in old) for k, old in choices.slopes.items()}
    return Choices(slopes, choices.signs, {k: next(parts) for k in choices.multipliers})
