"""The inputs that a certificate covers: a ball around each image, cut with the box [0, 1]."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from robaudit.attacks.verification import accepted_radius
from robaudit.engine.projections import per_image
from robaudit.types import Norm

# Fixed-point steps for the multiplier of the l2 ball; any multiplier gives a valid bound.
_STEPS = 8


@dataclass(frozen=True)
class Region:
    """A ball cut with the box, for each of ``b`` images.

    Attributes:
        norm: of the ball.
        eps: its radius ``(b,)``, and a little more: every point that counts as inside the threat
            model when adversarial examples are verified is in the region.
        centre: the images ``(b, *shape)``.
        low, high: the smallest box around the region, ``(b, *shape)``.
    """

    norm: Norm
    eps: Tensor
    centre: Tensor
    low: Tensor
    high: Tensor

    @classmethod
    def around(cls, x: Tensor, norm: Norm, eps: float | Tensor) -> Region:
        """The regions around images ``(b, *shape)`` in [0, 1], in float64.

        Args:
            eps: one radius, or ``(b,)``.
        """
        centre = x.double()
        radius = torch.as_tensor(eps, dtype=torch.float64, device=x.device).expand(len(x))
        radius = accepted_radius(radius)
        wide = per_image(centre, radius)
        return cls(norm, radius, centre, (centre - wide).clamp(0, 1), (centre + wide).clamp(0, 1))

    def rows(self, rows: Tensor | slice) -> Region:
        return Region(self.norm, self.eps[rows], self.centre[rows], self.low[rows], self.high[rows])

    def to(self, dtype: torch.dtype) -> Region:
        return Region(
            self.norm,
            self.eps.to(dtype),
            self.centre.to(dtype),
            self.low.to(dtype),
            self.high.to(dtype),
        )

    def minimum(self, a: Tensor) -> Tensor:
        """A lower bound of the minimum of ``a . x`` over the region, differentiable in ``a``.

        In linf the minimum itself. In l1 and l2 the Lagrangian of the ball at a multiplier that is
        nearly the best: ``min a . x + m (|x - centre|^p - eps^p)`` over the box, which is no larger
        than the minimum whatever the multiplier ``m >= 0``.

        Args:
            a: ``(p, *shape)``; the region has ``p`` rows or one.

        Returns: ``(p,)``, up to the rounding of sums.
        """
        a = a.flatten(1)
        low, high = self.low.flatten(1), self.high.flatten(1)
        if self.norm == "linf":
            return (a.clamp(min=0) * low + a.clamp(max=0) * high).sum(1)
        centre = self.centre.flatten(1)
        # The farthest that a pixel can go in the direction that lowers a . x.
        reach = torch.where(a.detach() > 0, centre - low, high - centre)
        at_centre = (a * centre).sum(1)
        if self.norm == "l1":
            m = self._l1_multiplier(a.detach().abs(), reach)
            gained = (reach * (a.abs() - m[:, None]).clamp(min=0)).sum(1)
            return at_centre - gained - m * self.eps * _up(a)
        m = self._l2_multiplier(a.detach().abs(), reach)
        size = torch.minimum(a.detach().abs() / (2 * m[:, None]), reach)
        moved = -size * a.detach().sign()
        inside = (a * moved).sum(1) + m * (moved * moved).sum(1)
        return at_centre + inside - m * self.eps**2 * _up(a)

    def _l1_multiplier(self, a: Tensor, reach: Tensor) -> Tensor:
        """The slope of the last pixel that is moved when the steepest pixels move first."""
        order = a.argsort(1, descending=True)
        spent = reach.expand_as(a).gather(1, order).cumsum(1)
        last = (spent < self.eps[:, None]).sum(1)
        steepest = a.gather(1, order)
        beyond = torch.zeros_like(steepest[:, :1])
        return torch.cat([steepest, beyond], 1).gather(1, last[:, None])[:, 0]

    def _l2_multiplier(self, a: Tensor, reach: Tensor) -> Tensor:
        """Pixels that reach the box are fixed there; the others share the rest of the radius."""
        square = a * a
        free = torch.ones_like(a, dtype=torch.bool)
        tiny = torch.finfo(a.dtype).tiny ** 0.5
        m = torch.full_like(a[:, 0], tiny)
        for _ in range(_STEPS):
            left = self.eps**2 - torch.where(free, 0, reach * reach).sum(1)
            shared = torch.where(free, square, 0).sum(1)
            m = torch.where(left > 0, (shared / (4 * left.clamp(min=tiny))).sqrt(), 0)
            m = m.clamp(min=tiny)
            free = a < 2 * m[:, None] * reach
        return m


def _up(a: Tensor) -> float:
    """A factor for the rounding of the multiplier's product with the radius."""
    return 1 + 8 * torch.finfo(a.dtype).eps
