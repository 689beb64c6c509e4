"""The geometry of a threat model: random starts, ascent steps and projections.

``x`` are clean images ``(n, c, h, w)``; every function works on each image alone.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from robaudit.engine import uniform_rows
from robaudit.types import ThreatModel


def random_start(x: Tensor, index: Tensor, threat: ThreatModel, seed: int, restart: int) -> Tensor:
    """A point of the ball around each image, clipped to the box.

    linf: uniform in the cube; l2: uniform in the ball (a uniform direction, radius
    ``eps * u^(1/d)``).
    """
    shape = tuple(x.shape[1:])
    if threat.norm == "linf":
        uniform = uniform_rows(shape, index, seed, "start", restart)
        return (x + threat.eps * (2 * uniform - 1).to(x.device)).clamp(0, 1)
    d = math.prod(shape)
    # Box-Muller on a uniform draw keeps to one kind of per-example draw.
    uniform = uniform_rows((2 * d + 1,), index, seed, "start", restart)
    radius = torch.sqrt(-2 * torch.log1p(-uniform[:, :d]))
    normal = radius * torch.cos(2 * math.pi * uniform[:, d : 2 * d])
    direction = normal / _length(normal)
    moved = threat.eps * uniform[:, 2 * d :] ** (1 / d) * direction
    return (x + moved.reshape(-1, *shape).to(x.device)).clamp(0, 1)


def ascend(adv: Tensor, gradient: Tensor, step: float, threat: ThreatModel) -> Tensor:
    """The steepest ascent step of length ``step`` in the threat model's norm."""
    if threat.norm == "linf":
        return adv + step * gradient.sign()
    return adv + step * gradient / _length(gradient)


def project(adv: Tensor, x: Tensor, threat: ThreatModel) -> Tensor:
    """The nearest point of the ball around ``x``, then of the box ``[0, 1]``."""
    if threat.norm == "linf":
        adv = torch.minimum(torch.maximum(adv, x - threat.eps), x + threat.eps)
    else:
        moved = adv - x
        adv = x + moved * (threat.eps / _length(moved)).clamp_max(1)
    return adv.clamp(0, 1)


def _length(rows: Tensor) -> Tensor:
    lengths: Tensor = torch.linalg.vector_norm(rows.flatten(1), dim=1).clamp_min(1e-12)
    return lengths.reshape(-1, *[1] * (rows.dim() - 1))
