"""Upper bounds of ReLUs of affine functions of the input: the convex hull over the box."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class Hull:
    """Upper bounds of ``relu(w x + b)`` over the box ``low <= x <= high`` of one image.

    With ``m_i <= w_i x_i <= M_i`` there, for any shares ``s_i`` in [0, 1],

        ``relu(w x + b) <= sum_i s_i w_i x_i + max(-sum_i s_i m_i, b + sum_i (1 - s_i) M_i)``:

    by the first of the two the right side is at least 0, by the second at least ``w x + b``. Equal
    shares give the line through both ends of the interval of ``w x + b``. All shares together give
    the convex hull, which is exact at the corners of the box, where linear bounds have their
    minimum.

    Attributes:
        position: ``(u,)`` elements in the flattened node.
        pixel: ``(u, n)`` elements of the flattened input that each depends on.
        weight, least, width: ``(u, n)``: ``w``, ``m`` and ``M - m``.
        high: ``(u,)``, ``b + sum_i M_i``.
        error: ``(u,)``, how far rounding can move ``w x + b``, and what follows for a coefficient
            of it.
        pixels: elements of the input.

    Source: Tjandraatmadja et al., "The convex relaxation barrier, revisited", NeurIPS 2020; De
    Palma et al., "Scaling the convex barrier with sparse dual algorithms", 2021.
    """

    position: Tensor
    pixel: Tensor
    weight: Tensor
    least: Tensor
    width: Tensor
    high: Tensor
    error: Tensor
    pixels: int

    def rows(self, rows: Tensor) -> Hull:
        """Of some of the elements."""
        return Hull(
            self.position[rows],
            self.pixel[rows],
            self.weight[rows],
            self.least[rows],
            self.width[rows],
            self.high[rows],
            self.error[rows],
            self.pixels,
        )

    def to(self, dtype: torch.dtype) -> Hull:
        return replace(
            self,
            weight=self.weight.to(dtype),
            least=self.least.to(dtype),
            width=self.width.to(dtype),
            high=self.high.to(dtype),
            error=self.error.to(dtype),
        )

    def start(self, p: int) -> Tensor:
        """Equal shares, ``(p, u, n)``."""
        whole = self.width.sum(1)
        share = (self.high / whole.clamp(min=torch.finfo(whole.dtype).tiny)).clamp(0, 1)
        return share[None, :, None].expand(p, -1, self.weight.shape[1]).clone()


@dataclass(frozen=True)
class Upper:
    """The upper bounds of a hull that ``p`` forms choose.

    Attributes:
        shares: ``(p, u, n)``.
        free: ``(p, u)`` bool, elements whose sign is open; ``None`` for all.
    """

    hull: Hull
    shares: Tensor
    free: Tensor | None = None

    def through(self, a: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Replace negative coefficients of the ReLU by coefficients of the input.

        The shares are first moved so that both terms of the maximum are equal. Rounding may leave
        them outside [0, 1] by a few units in the last place, which the hull's error covers.

        Args:
            a: ``(p, *shape)``.

        Returns: the coefficients that are left, like ``a``; those of the input ``(p, pixels)``; a
        constant ``(p,)``; and what rounding can take off it, ``(p,)``.
        """
        hull, flat = self.hull, a.flatten(1)
        v = flat[:, hull.position].clamp(max=0)
        if self.free is not None:
            v = v * self.free
        whole, taken = hull.width.sum(1), (self.shares * hull.width).sum(2)
        tiny = 1e-6 * whole + torch.finfo(whole.dtype).tiny
        fewer = (hull.high / torch.maximum(taken, tiny)).clamp(0, 1)
        more = ((whole - hull.high) / torch.maximum(whole - taken, tiny)).clamp(0, 1)
        # 1 - (1 - shares * fewer) * more
        base, factor = 1 - more, fewer * more
        lowest = base * hull.least.sum(1) + factor * (self.shares * hull.least).sum(2)
        excess = hull.high - base * whole - factor * taken
        constant = (v * (excess.clamp(min=0) - lowest)).sum(1)
        passed = (v * factor)[..., None] * self.shares + (v * base)[..., None]
        passed = (passed * hull.weight).flatten(1)
        pixel = hull.pixel.flatten().expand(len(passed), -1)
        below = passed.new_zeros(len(passed), hull.pixels).scatter_add(1, pixel, passed)
        left = flat.index_add(1, hull.position, -v).view_as(a)
        return left, below, constant, (v.abs() * hull.error).sum(1)
