"""Linear bounds of activations between known bounds of their input."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

# Steps of the search for the best slope below a tanh; each shrinks the range by 0.62.
_SEARCH = 24
_GOLDEN = (5**0.5 - 1) / 2


@dataclass(frozen=True)
class Planes:
    """``lower_slope z + lower_shift <= f(z) <= upper_slope z + upper_shift``, elementwise.

    Attributes:
        lower_slope, lower_shift, upper_slope, upper_shift: ``(b, *shape)``.
    """

    lower_slope: Tensor
    lower_shift: Tensor
    upper_slope: Tensor
    upper_shift: Tensor

    def through(self, a: Tensor) -> tuple[Tensor, Tensor]:
        """``c`` and ``d``, like ``a`` and ``(p,)``, such that ``a . f(z) >= c . z + d``."""
        positive, negative = a.clamp(min=0), a.clamp(max=0)
        shifts = positive * self.lower_shift + negative * self.upper_shift
        return (
            positive * self.lower_slope + negative * self.upper_slope,
            shifts.flatten(1).sum(1),
        )

    def rows(self, rows: Tensor | slice) -> Planes:
        return Planes(*(part[rows] for part in self._parts))

    def to(self, dtype: torch.dtype) -> Planes:
        return Planes(*(part.to(dtype) for part in self._parts))

    @property
    def _parts(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return self.lower_slope, self.lower_shift, self.upper_slope, self.upper_shift


@dataclass(frozen=True)
class PartlyOpen:
    """Planes of ``p`` forms on one image that differ in the ``u`` elements of open sign only.

    Attributes:
        fixed: ``(1, *shape)``, the slope of the elements whose sign is known.
        position: ``(u,)`` of the open elements in the flattened node.
        open: their planes, ``(p, u)``.
    """

    fixed: Tensor
    position: Tensor
    open: Planes

    def through(self, a: Tensor) -> tuple[Tensor, Tensor]:
        """As :meth:`Planes.through`."""
        flat = a.flatten(1)
        inner, shift = self.open.through(flat[:, self.position])
        passed = (flat * self.fixed.flatten(1)).index_copy(1, self.position, inner)
        return passed.view_as(a), shift

    def rows(self, rows: Tensor | slice) -> PartlyOpen:
        return replace(self, open=self.open.rows(rows))

    def to(self, dtype: torch.dtype) -> PartlyOpen:
        return replace(self, fixed=self.fixed.to(dtype), open=self.open.to(dtype))


def relu_planes(low: Tensor, high: Tensor, slope: Tensor | None = None) -> Planes:
    """Bounds of ``max(z, 0)`` for ``low <= z <= high``.

    Args:
        slope: of the lower bound where the sign of ``z`` is open, in [0, 1]; by default 0 or 1,
            whichever encloses the smaller area.

    Source: Zhang et al., "Efficient neural network robustness certification with general activation
    functions", NeurIPS 2018; the free slope: Xu et al., "Fast and complete", ICLR 2021.
    """
    opened = (low < 0) & (high > 0)
    on = (low >= 0).to(low.dtype)
    if slope is None:
        slope = (high > -low).to(low.dtype)
    tiny = torch.finfo(low.dtype).tiny
    upper = torch.where(opened, high / (high - low).clamp(min=tiny), on)
    shift = torch.where(opened, torch.maximum(-upper * low, high - upper * high), 0)
    return Planes(torch.where(opened, slope, on), torch.zeros_like(low), upper, shift)


def tanh_planes(low: Tensor, high: Tensor, slopes: tuple[Tensor, Tensor] | None = None) -> Planes:
    """Bounds of ``tanh(z)`` for ``low <= z <= high``.

    For any slope the shift is the best possible, ``min tanh(z) - slope z`` over the interval, which
    lies at an end of it or where the derivative ``1 - tanh(z)^2`` equals the slope.

    Args:
        slopes: of the lower and the upper bound, in [0, 1]; by default those of the bounds that are
            tightest in the middle of the interval, and so enclose the smallest area.
    """
    if slopes is None:
        slopes = _best_slope(low, high), _best_slope(-high, -low)
    below, above = slopes
    return Planes(below, _shift(low, high, below), above, -_shift(-high, -low, above))


def _shift(low: Tensor, high: Tensor, slope: Tensor) -> Tensor:
    """``min tanh(z) - slope z`` over ``low <= z <= high``."""
    with torch.no_grad():
        # The stationary points are -z and z; the one local minimum is at -z.
        root = (1 - slope).clamp(0, 1).sqrt().clamp(max=1 - torch.finfo(slope.dtype).eps)
        inner = torch.minimum(torch.maximum(-torch.atanh(root), low), high)
        places = torch.stack([low.expand_as(inner), high.expand_as(inner), inner])
        lowest = (places.tanh() - slope * places).argmin(0, keepdim=True)
        place = places.gather(0, lowest)[0]
    return place.tanh() - slope * place


def _best_slope(low: Tensor, high: Tensor) -> Tensor:
    """The slope whose lower bound is highest in the middle, a concave function of the slope."""
    middle = (low + high) / 2
    left, right = torch.zeros_like(low), torch.ones_like(low)

    def height(slope: Tensor) -> Tensor:
        return slope * middle + _shift(low, high, slope)

    for _ in range(_SEARCH):
        first = right - _GOLDEN * (right - left)
        second = left + _GOLDEN * (right - left)
        rising = height(first) < height(second)
        left, right = torch.where(rising, first, left), torch.where(rising, right, second)
    return (left + right) / 2
