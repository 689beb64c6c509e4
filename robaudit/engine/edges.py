"""Gradients at the edges of the box, where a clamp has none.

The derivative of ``clamp(x, 0, 1)`` at 0 and 1 is a convention: PyTorch gave one until 2.13 and
gives zero from 2.14 on, as ReLU always did. A network that clamps its input is then blind at every
pixel of exactly 0 or 1, and so is an attack, although moving such a pixel into the box moves the
logits. There the derivative that counts is the one just inside.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from robaudit.engine.raised import fails_again
from robaudit.engine.seeding import uniform_rows
from robaudit.engine.surrogate import SurrogateGradient
from robaudit.engine.voting import Voted

Forward = Callable[[Tensor], Tensor]

# How far inside, in turn: steps that float32 and, beside 1, half precision resolve.
_NUDGES = (2.0**-20, 2.0**-10)
_FEW = 4
# Of the pixels on an edge that have a gradient just inside, the share that has none on the edge.
_BLIND = 0.02


def edge_nudge(forward: Forward, images: Tensor) -> float:
    """How far inside the box gradients have to be taken; 0 where they are there at its edges too.

    Compared on noise and on the first images, a quarter of their pixels put to 0 and a quarter to
    1: the gradient of a mixture of the logits is exactly zero at pixels on an edge, not zero at
    others, and not zero at the same pixels just inside. The caller's random state is left alone.

    Args:
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
    """A network whose gradients are those just inside the box; its values stay where the image is.

    Where a gradient is wanted it takes a second pass, else it is the network itself.
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
    """The network itself, or :class:`JustInside` where it is blind at the edges of the box."""
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
            return logits.detach(), None
        weights = torch.linspace(-1, 1, logits.shape[-1]).to(logits)
        (gradient,) = torch.autograd.grad((logits * weights).sum(), leaf, allow_unused=True)
    return logits.detach(), gradient


def _gradient(forward: Forward, points: Tensor) -> Tensor | None:
    """:func:`mixture_gradient` alone; ``None`` also where the network raises."""
    try:
        return mixture_gradient(forward, points)[1]
    except BaseException as error:
        if not fails_again(error):
            raise
        return None
