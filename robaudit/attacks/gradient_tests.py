"""Compares a network's gradient with differences of its logits, along lines and at single points.

``f(x) = <u, z(x)>`` is a linear combination of an image's logits. Labels and losses play no part,
so that neither large logits nor a cross-entropy of zero counts as a fault.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from robaudit.engine.logits import Forward, logits_of

_TILE = 64
# A line or direction is not counted where rounding is a tenth of the change of the logits.
_CLEAR = 10.0
# Lines that disagree are integrated again, over so many times as many pieces.
_FINER = 16
_REFINED = 6


@dataclass(frozen=True)
class Agreement:
    """How far some lines or directions confirm the gradient.

    Attributes:
        tested: how many of them change the logits by more than rounding.
        against: how many of those contradict the gradient.
        ratio: median over the latter of the change of the logits divided by the change that the
            gradient predicts; signed.
    """

    tested: int
    against: int
    ratio: float

    @property
    def share(self) -> float:
        return self.against / max(self.tested, 1)


def gradients_at(forward: Forward, x: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
    """``df/dx`` and the logits at images ``(n, c, h, w)`` with combinations ``u`` ``(n, k)``."""
    gradients, logits = [], []
    for images, weights in zip(torch.split(x, _TILE), torch.split(u, _TILE), strict=True):
        with torch.enable_grad():
            leaf = images.detach().requires_grad_()
            z = logits_of(forward, leaf)
            f = (z * weights.to(z)).sum()
            (gradient,) = torch.autograd.grad(f, leaf, materialize_grads=True, allow_unused=True)
        gradients.append(gradient)
        logits.append(z.detach())
    return torch.cat(gradients), torch.cat(logits)


def logits_at(forward: Forward, x: Tensor) -> Tensor:
    with torch.no_grad():
        return torch.cat([logits_of(forward, images) for images in torch.split(x, _TILE)])


def along_lines(
    forward: Forward, start: Tensor, end: Tensor, u: Tensor, pieces: int, off: float = 0.5
) -> Agreement:
    """``f(end) - f(start)`` against the gradient's integral over the line between, for each line.

    They are equal for a continuous network, whatever its curvature and its kinks. They differ where
    the gradient is that of another function, and where the network is piecewise constant, at the
    length at which an attack moves. The integral is a sum over the midpoints of ``pieces`` parts,
    refined where that disagrees. A line at whose ends the logits are equal is not counted: the
    network may be constant there.

    Args:
        off: allowed error of the integral, as a share of the integral of the absolute gradient.
    """
    ends = logits_at(forward, torch.cat([start, end])).double()
    first, last = ends.chunk(2)
    moved = ((last - first) * u).sum(1)
    floor = _CLEAR * _rounding(ends) * u.abs().sum(1)
    summed, length = _integral(forward, start, end, u, pieces)

    def disagree(summed: Tensor, length: Tensor, moved: Tensor) -> Tensor:
        size = torch.maximum(torch.maximum(moved.abs(), summed.abs()), length)
        return ~((moved - summed).abs() < off * size)

    tested = (moved != 0) & ~(torch.maximum(moved.abs(), summed.abs()) <= floor)
    against = tested & disagree(summed, length, moved)
    open_lines = torch.nonzero(against)[:, 0]
    if len(open_lines) > len(start) // 8:
        rows = open_lines[:_REFINED]
        finer, length = _integral(forward, start[rows], end[rows], u[rows], _FINER * pieces)
        still = disagree(finer, length, moved[rows])
        summed[rows] = finer
        against[rows] = still
        # The other lines are judged by these.
        if not bool(still.any()):
            against[:] = False
    else:
        against[:] = False
    return Agreement(int(tested.sum()), int(against.sum()), _ratio(moved, summed, against))


def at_points(
    forward: Forward, exact: Forward, x: Tensor, u: Tensor, signs: Tensor, steps: tuple[float, ...]
) -> Agreement:
    """Central differences ``(f(x + h d) - f(x - h d)) / 2 h`` against ``<df/dx, d>``.

    Along the random signs ``d`` and along the gradient's signs. A difference counts where it is not
    zero, is the same to either side, and agrees with that of half the step, so that neither
    rounding nor a kink counts against a network (two inputs of a maximum are often equal on a clean
    image), nor a piecewise constant one, which :func:`along_lines` judges. The result is that of
    the first step size at which half of the directions count.

    Args:
        forward: gives the gradient.
        exact: gives the differences: the same network, in float64 where possible.
        x: in the images' own type; ``x - h`` and ``x + h`` are in the box.
    """
    gradient, _ = gradients_at(forward, x, u)
    kind = torch.float64 if exact is not forward else x.dtype
    directions = torch.cat([signs, gradient.nan_to_num().sign()]).double()
    both, own = torch.cat([x, x]).double(), torch.cat([u, u])
    slope = gradient.double().repeat(2, *[1] * (x.dim() - 1))
    predicted = (slope * directions).flatten(1).sum(1)
    size = slope.flatten(1).norm(dim=1)

    here = (logits_at(exact, x.to(kind)).double() * u).sum(1).repeat(2)

    def difference(h: float) -> tuple[Tensor, Tensor]:
        """The central difference, and the distance of the middle from the mean of the sides."""
        ahead, behind = (
            (logits_at(exact, (both + s * h * directions).to(kind)).double() * own).sum(1)
            for s in (1, -1)
        )
        return (ahead - behind) / (2 * h), (ahead + behind - 2 * here).abs() / (2 * h)

    best = Agreement(0, 0, 1.0)
    for h in steps:
        (whole, bent), (half, _) = difference(h), difference(h / 2)
        same = (0.02 if kind == torch.float64 else 0.1) * whole.abs()
        counts = (whole != 0) & ((whole - half).abs() <= same) & (bent <= same)
        scale = torch.maximum(torch.maximum(whole.abs(), predicted.abs()), 0.3 * size)
        against = counts & ~((whole - predicted).abs() < 0.3 * scale)
        found = Agreement(int(counts.sum()), int(against.sum()), _ratio(whole, predicted, against))
        if 2 * found.tested >= len(directions):
            return found
        best = max(best, found, key=lambda one: one.tested)
    return best if 4 * best.tested >= len(directions) else Agreement(0, 0, 1.0)


def _integral(
    forward: Forward, start: Tensor, end: Tensor, u: Tensor, pieces: int
) -> tuple[Tensor, Tensor]:
    """Of the gradient along each line, and of its absolute value; ``(n,)`` float64 each."""
    way = end - start
    summed = torch.zeros(len(start), dtype=torch.float64, device=start.device)
    length = summed.clone()
    points = [start + (k + 0.5) / pieces * way for k in range(pieces)]
    gradient, _ = gradients_at(forward, torch.cat(points), u.repeat(pieces, 1))
    for piece in gradient.chunk(pieces):
        along = (piece.double() * way.double()).flatten(1).sum(1) / pieces
        summed += along
        length += along.abs()
    return summed, length


def _rounding(logits: Tensor) -> float:
    """The logits' rounding error, in the coarsest type that represents all of them."""
    largest = float(logits.abs().max())
    for kind in (torch.bfloat16, torch.float16, torch.float32):
        if bool((logits.to(kind).double() == logits).all()):
            return 4 * torch.finfo(kind).eps * largest
    return 4 * torch.finfo(torch.float32).eps * largest


def _ratio(did: Tensor, predicted: Tensor, of: Tensor) -> float:
    if not bool(of.any()):
        return 1.0
    return float((did[of] / predicted[of]).nan_to_num(nan=float("inf")).median())
