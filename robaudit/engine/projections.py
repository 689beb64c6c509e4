"""The geometry of a threat model: random starts, ascent steps and projections.

``x`` are clean images ``(n, c, h, w)``; every function works on each image alone.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from robaudit.engine.seeding import normal_rows, uniform_rows
from robaudit.types import Norm, ThreatModel

# Newton steps on a piecewise linear function; it is exact once the pieces stop changing.
_NEWTON_STEPS = 40
# The share of pixels that an l1 step of plain PGD moves.
_L1_PIXELS = 0.01


def random_start(
    x: Tensor, index: Tensor, threat: ThreatModel, seed: int, restart: int, stream: str = "start"
) -> Tensor:
    """A point of the ball around each image, clipped to the box.

    linf: uniform in the cube; l2: uniform in the ball (a uniform direction, radius
    ``eps * u^(1/d)``); l1: the projection of ``x`` plus standard normal noise.
    """
    shape = x.shape[1:]
    if threat.norm == "linf":
        uniform = uniform_rows(shape, index, seed, stream, restart, device=x.device)
        return (x + threat.eps * (2 * uniform - 1)).clamp(0, 1)
    normal = normal_rows(shape, index, seed, stream, restart, device=x.device)
    if threat.norm == "l1":
        return project(x + normal, x, threat)
    uniform = uniform_rows((), index, seed, f"{stream} radius", restart, device=x.device)
    # In float64: the last bit of a power may depend on the place among the rows.
    share = (uniform.double() ** (1 / math.prod(shape))).float()
    scale = threat.eps * share / length(normal, "l2").clamp_min(1e-12)
    return (x + per_image(normal, scale) * normal).clamp(0, 1)


def ascend(adv: Tensor, gradient: Tensor, step: float, norm: Norm) -> Tensor:
    """An ascent step of length ``step`` in ``norm``.

    linf and l2: the steepest one. l1: signs on the hundredth of the pixels with the largest
    gradients, as the steepest step would move a single one.
    Source (l1): Tramer & Boneh, "Adversarial training and robustness for multiple perturbations",
    NeurIPS 2019.
    """
    if norm == "linf":
        return adv + step * gradient.sign()
    if norm == "l2":
        return adv + step * gradient / per_image(adv, length(gradient, "l2").clamp_min(1e-12))
    flat = gradient.flatten(1)
    moved = max(1, round(_L1_PIXELS * flat.shape[1]))
    at = flat.abs().topk(moved, dim=1).indices
    signs = torch.zeros_like(flat).scatter(1, at, flat.gather(1, at).sign())
    return adv + step / moved * signs.view_as(adv)


def project(adv: Tensor, x: Tensor, threat: ThreatModel) -> Tensor:
    """A point of the ball around ``x`` and of the box ``[0, 1]``.

    linf and l1: the nearest one. l2: the nearest point of the ball, then of the box.
    """
    return Ball(x, threat).project_(adv.clone())


def length(rows: Tensor, norm: str) -> Tensor:
    """The norm of each row of ``(n, ...)``, shape ``(n,)``."""
    flat = rows.flatten(1)
    if norm == "linf":
        return flat.abs().amax(1)
    found: Tensor = torch.linalg.vector_norm(flat, ord=2 if norm == "l2" else 1, dim=1)
    return found


def per_image(images: Tensor, values: Tensor) -> Tensor:
    """``(n,)`` values in the shape that multiplies ``(n, ...)`` images."""
    return values.reshape(-1, *[1] * (images.dim() - 1))


class Ball:
    """The balls of a threat model around images ``x``, for projecting many times."""

    def __init__(self, x: Tensor, threat: ThreatModel) -> None:
        self.x, self.norm, self.eps = x, threat.norm, threat.eps
        if self.norm == "linf":
            self._low, self._high = (x - self.eps).clamp_min_(0), (x + self.eps).clamp_max_(1)

    def step(self, adv: Tensor, gradient: Tensor, step: float) -> Tensor:
        """One step of projected gradient ascent: :func:`ascend`, then :func:`project`."""
        return self.project_(ascend(adv, gradient, step, self.norm))

    def project_(self, adv: Tensor) -> Tensor:
        """:func:`project` in place."""
        if self.norm == "linf":
            return adv.clamp_(self._low, self._high)
        if self.norm == "l2":
            moved = adv.sub_(self.x)
            shrunk = (self.eps / length(moved, "l2").clamp_min(1e-12)).clamp_max_(1)
            return moved.mul_(per_image(moved, shrunk)).add_(self.x).clamp_(0, 1)
        return adv.copy_(project_l1(adv, self.x, self.eps))


def project_l1(adv: Tensor, x: Tensor, eps: float) -> Tensor:
    """The nearest point to ``adv`` with ``||z - x||_1 <= eps`` and ``0 <= z <= 1``.

    With ``u = adv - x`` it is ``z - x = sign(u) min(max(|u| - s, 0), room)``, ``room`` what the box
    leaves in that direction and ``s >= 0`` the root of ``||z - x||_1 = eps``, found by Newton steps
    inside a shrinking bracket.
    Source: Croce & Hein, "Mind the box: l1-APGD for sparse adversarial attacks on image
    classifiers", ICML 2021, Prop. 2.1.
    """
    moved = (adv - x).flatten(1)
    size = moved.abs()
    flat = x.flatten(1)
    room = torch.where(moved > 0, 1 - flat, flat)
    low = torch.zeros_like(size[:, :1])
    high = size.amax(1, keepdim=True)
    at = low
    kept = torch.minimum(size, room)
    done = torch.zeros_like(low, dtype=torch.bool)
    for step in range(_NEWTON_STEPS):
        excess = kept.sum(1, keepdim=True) - eps
        # An image that is done stays as it is: its neighbours must not add steps to it.
        done = done | (excess.abs() <= 1e-6 * eps) | ((excess <= 0) & (step == 0))
        if x.device.type == "cpu" and bool(done.all()):
            break
        low = torch.where(excess > 0, at, low)
        high = torch.where(excess <= 0, at, high)
        free = ((kept > 0) & (kept < room)).sum(1, keepdim=True)
        newton = at + excess / free
        inside = (newton > low) & (newton < high)
        at = torch.where(done, at, torch.where(inside, newton, 0.5 * (low + high)))
        kept = torch.minimum((size - at).clamp_min_(0), room)
    total = kept.sum(1, keepdim=True).clamp_min_(1e-12)
    kept = kept * (eps / total).clamp_max_(1)
    return (x + (kept * moved.sign()).view_as(x)).clamp_(0, 1)
