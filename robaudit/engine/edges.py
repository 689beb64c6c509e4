"""Gradients at pixels of exactly 0 or 1, where a clamp may have none.

The derivative of ``clamp(x, 0, 1)`` at 0 and 1 is a convention: one in PyTorch up to 2.13, zero
from 2.14 on, as for ReLU. A network that clamps its input then has no gradient at pixels of exactly
0 or 1, although moving them into the box changes the logits. There the derivative just inside is
used.
"""

from __future__ import annotations

import torch
from torch import Tensor

from robaudit.engine.logits import Forward
from robaudit.engine.raised import recurs
from robaudit.engine.seeding import uniform_rows
from robaudit.engine.surrogate import SurrogateGradient
from robaudit.engine.voting import Voted

# Distances from the edge that are tried: resolved by float32 and, near 1, by half precision and by
# bfloat16.
_NUDGES = (2.0**-20, 2.0**-10, 2.0**-7)
_FEW = 4
# Fraction of the pixels with a gradient just inside that may have none on the edge.
_BLIND = 0.02


def edge_nudge(forward: Forward, images: Tensor) -> float:
    """The distance from the edges of the box at which gradients exist; 0 if they exist on them.

    Tested on noise and on the first images, with a quarter of the pixels set to 0 and a quarter to
    1: whether the gradient of a linear combination of the logits is exactly zero at pixels on an
    edge, but neither at others nor at the same pixels just inside. The caller's random state is not
    changed.

    Args:
        forward: images to logits.
        images: ``(n, ..., c, h, w)`` in [0, 1] on the network's device.

    >>> net = torch.nn.Sequential(torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(4, 2))
    >>> 0 < edge_nudge(net, torch.rand(3, 1, 2, 2)) < 1e-5, edge_nudge(net[1:], torch.rand(3, 4))
    (True, 0.0)
    """
    if isinstance(forward, Voted):  # whose noise moves pixels on and off the edges
        return 0.0
    shape = tuple(images.shape[1:])
    noise, place = (
        uniform_rows(shape, torch.arange(2 * _FEW), 0, stream).to(images)
        for stream in ("edges", "which edges")
    )
    points = torch.cat([images[:_FEW].detach(), noise])[: 2 * _FEW]
    place = place[: len(points)]
    points = points.masked_fill(place < 0.25, 0.0).masked_fill(place > 0.75, 1.0)
    on_edge = (place < 0.25) | (place > 0.75)
    devices = [images.device] if images.is_cuda else []
    with torch.random.fork_rng(devices):
        here = _gradient(forward, points)
        if here is None:
            return 0.0
        alive = ((here != 0) & ~on_edge).flatten(1).any(1)
        if not bool((alive[:, None] & ((here == 0) & on_edge).flatten(1)).any()):
            return 0.0
        needed = 0.0
        for edge in (points == 0, points == 1):
            for nudge in _NUDGES:
                inside = _gradient(forward, points.clamp(nudge, 1 - nudge))
                if inside is None:
                    return 0.0
                seen = ((inside != 0) & edge & on_edge).flatten(1)[alive]
                blind = seen & (here == 0).flatten(1)[alive]
                if float(blind.sum()) > _BLIND * float(seen.sum()):
                    needed = max(needed, nudge)
                    break
    return needed


class JustInside:
    """A network with the values at the image and the gradient just inside the box.

    With gradients it takes a second forward pass.
    """

    def __init__(self, forward: Forward, nudge: float) -> None:
        self.forward = forward
        self.nudge = nudge

    def __call__(self, x: Tensor) -> Tensor:
        if not (torch.is_grad_enabled() and x.requires_grad):
            return self.forward(x)
        with torch.no_grad():
            values = self.forward(x)
            away = x.clamp(self.nudge, 1 - self.nudge) - x
        found: Tensor = SurrogateGradient.apply(self.forward(x + away), values)
        return found


def sighted(forward: Forward, images: Tensor) -> Forward:
    """The network, or :class:`JustInside` where it has no gradient at the edges of the box."""
    nudge = edge_nudge(forward, images)
    return JustInside(forward, nudge) if nudge else forward


def mixture_gradient(forward: Forward, images: Tensor) -> tuple[Tensor, Tensor | None]:
    """Logits, and the gradient in the images of a linear combination of them.

    The gradient is ``None`` where the logits do not depend on the images.
    """
    with torch.enable_grad():
        leaf = images.detach().requires_grad_()
        logits = forward(leaf)
    if not logits.requires_grad:
        return logits, None
    # Some networks differentiate what they made of the images, cut off from them.
    (gradient,) = torch.autograd.grad(logits, leaf, mixture_of(logits), allow_unused=True)
    return logits.detach(), gradient


def mixture_of(logits: Tensor) -> Tensor:
    """The coefficients of the linear combination, in the logits' shape."""
    return torch.linspace(-1, 1, logits.shape[-1]).to(logits).expand_as(logits)


def _gradient(forward: Forward, points: Tensor) -> Tensor | None:
    """:func:`mixture_gradient` alone; ``None`` also where the network raises."""
    try:
        return mixture_gradient(forward, points)[1]
    except BaseException as error:
        if not recurs(error):
            raise
        return None
