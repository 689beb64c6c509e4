"""The shortest way from a point of the box to a hyperplane, inside the box."""

from __future__ import annotations

import torch
from torch import Tensor

# Newton steps on a concave, piecewise linear function: each run of pieces is passed at most once.
_NEWTON_STEPS = 30
_FAR = 1e12


def to_hyperplane(points: Tensor, normal: Tensor, gap: Tensor, norm: str) -> Tensor:
    """The shortest ``d`` with ``normal . d = -gap`` and ``0 <= points + d <= 1``, ``(n, p)``.

    Where the box does not reach the hyperplane, the ``d`` that comes nearest to it. With ``s`` the
    sign of the direction and ``r`` the distance to the box's bound, ``d = s min(t a, r)`` with
    ``a = 1`` (linf) or ``|normal|`` (l2) and ``t`` the root of
    ``sum |normal| min(t a, r) = |gap|``; in l1 the pixels with the largest ``|normal|`` are moved
    to their bounds one after the other.

    Source: Croce & Hein, "Minimally distorted adversarial examples with a fast adaptive boundary
    attack", ICML 2020, Eq. 4 and appendix A.

    Args:
        points, normal: ``(n, p)``.
        gap: ``(n,)`` ``normal . point - offset``.
    """
    way = -normal.sign() * gap.sign()[:, None]
    room = (way > 0).float().sub_(points).abs_()  # 1 - point upwards, point downwards
    weight, needed = normal.abs(), gap.abs()[:, None]
    if norm == "l1":
        return way * _greedy(weight, room, needed)
    scale = None if norm == "linf" else weight
    return way.mul_(_spread(weight, room, needed, scale))


def _spread(weight: Tensor, room: Tensor, needed: Tensor, scale: Tensor | None) -> Tensor:
    gains = weight if scale is None else weight * scale
    capacity = weight * room
    reach = room if scale is None else room / scale.clamp_min(1e-12)
    at = torch.zeros_like(needed)
    full, part = torch.empty_like(weight), torch.empty_like(weight)
    for _ in range(_NEWTON_STEPS):
        # The next point depends on the row's own pieces only, so a row that has converged does not
        # change while others need more steps. Ones and zeros are faster than masks.
        torch.le(reach, at, out=full)
        used = torch.mul(capacity, full, out=part).sum(1, keepdim=True)
        slope = torch.mul(gains, full.neg_().add_(1), out=part).sum(1, keepdim=True)
        then = torch.where(slope > 0, (needed - used) / slope, _FAR).clamp_max_(_FAR)
        then = torch.maximum(then, at)
        if at.device.type == "cpu" and bool((then == at).all()):
            break
        at = then
    return torch.minimum(at if scale is None else at * scale, room)


def _greedy(weight: Tensor, room: Tensor, needed: Tensor) -> Tensor:
    order = weight.argsort(dim=1, descending=True, stable=True)
    rooms, weights = room.gather(1, order), weight.gather(1, order)
    capacity = rooms * weights
    before = capacity.cumsum(1) - capacity
    moved = torch.minimum((needed - before).clamp_min_(0) / weights.clamp_min(1e-12), rooms)
    return torch.zeros_like(moved).scatter(1, order, moved)
