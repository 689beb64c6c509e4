"""Candidates of the Square attack in l2 and l1: pairs of opposite bumps that replace a window."""

from __future__ import annotations

import copy
from collections.abc import Iterable

import torch
from torch import Tensor

from robaudit.attacks.blocks import filled, parts
from robaudit.attacks.square_draws import Drawing, Draws, inside, unrounded_sides
from robaudit.engine import TILE, uniform_rows
from robaudit.engine.projections import length, per_image, project_l1
from robaudit.engine.seeding import key_of
from robaudit.types import ThreatModel

_TINY = 1e-12
# Tiles of bumps along one side of the starting point.
_TILES = 5


class Bumps:
    """Moves of the perturbation from one window to another."""

    def __init__(self, x: Tensor, threat: ThreatModel, schedule: Iterable[int], seed: int) -> None:
        self.norm, self.seed = threat.norm, seed
        # As the reference does: an l1 projection may end a rounding error outside.
        self.eps = threat.eps if self.norm == "l2" else threat.eps * (1 - 1e-6)
        _, self.channels, self.height, self.width = x.shape
        most = min(self.height, self.width)
        unrounded = unrounded_sides(schedule, x.shape)
        sides = [min(max(round(side), 3) // 2 * 2 + 1, most) for side in unrounded]
        whole = torch.tensor(sides, device=x.device)
        # A coin for the way that the bumps point, and one for the sign in each channel.
        coins, key = 1 + self.channels, key_of(seed, "square")
        self.drawn = Drawing(self.height, self.width, whole, 2, coins, key)
        self.shapes, self.places = self._table(sorted(set(sides)), x.device)

    def candidates(self, x: Tensor, best: Tensor, draws: Draws) -> Tensor:
        """The best images, each with a bump in a window and what is left in another taken away.

        Whole images are computed whatever the side, so that shapes do not change from query to
        query; the rounding of sums may depend on them.
        """
        change = best - x
        corners, side = draws.corners, draws.side
        here = inside(corners[:, :2], side, self.height, self.width)
        there = inside(corners[:, 2:], side, self.height, self.width)
        # Products with 0 and 1 are exact, and faster than a choice by a mask.
        first, either = here.to(x.dtype), (here | there).to(x.dtype)
        taken = self._sizes(change * either)
        spare = self._sizes(change.flatten(1)[:, None])
        old = change * first
        signs = draws.coins[:, 1:, None, None].to(x.dtype).mul_(2).sub_(1)
        bumps = self._bumps_at(corners[:, :2], side, draws.coins[:, 0]) * first
        new = (bumps * signs).add_(old / (self._sizes(old) + _TINY))
        if self.norm == "l2":
            free = (self.eps**2 - spare**2).clamp_min_(0) / self.channels
            size = (free + taken**2).sqrt()
        else:
            free = (self.eps - spare).clamp_min_(0) / self.channels
            size = (free + taken) * self.channels
        new = new.mul_(size / (self._sizes(new) + _TINY))
        return self._on_ball(x, change.mul_(1 - either).add_(new))

    def on(self, device: torch.device) -> Bumps:
        """The same on a device."""
        moved = copy.copy(self)
        moved.drawn = self.drawn.on(device)
        moved.shapes, moved.places = self.shapes.to(device), self.places.to(device)
        return moved

    def _on_ball(self, x: Tensor, change: Tensor) -> Tensor:
        if self.norm == "l2":
            size = length(change, "l2") + _TINY
            return (x + change * per_image(change, self.eps / size)).clamp_(0, 1)
        return project_l1(x + change, x, self.eps)

    def _sizes(self, change: Tensor) -> Tensor:
        """The norm of each channel, ``(n, c, 1, 1)``."""
        order = 2 if self.norm == "l2" else 1
        found: Tensor = torch.linalg.vector_norm(change.flatten(2), ord=order, dim=-1)
        return found[:, :, None, None]

    def _table(self, sides: list[int], device: torch.device) -> tuple[Tensor, Tensor]:
        """Bumps ``(sides, 2, largest, largest)``, upright and turned; where each side's are."""
        largest = sides[-1]
        shapes = torch.zeros(len(sides), 2, largest, largest)
        places = torch.zeros(largest + 1, dtype=torch.long)
        for place, side in enumerate(sides):
            upright = _bumps(side, self.norm)
            shapes[place, 0, :side, :side], shapes[place, 1, :side, :side] = upright, upright.T
            places[side] = place
        return shapes.to(device), places.to(device)

    def _bumps_at(self, corner: Tensor, side: Tensor, turned: Tensor) -> Tensor:
        """Bumps in windows of images, ``(n, 1, h, w)``; anything outside the windows."""
        largest = self.shapes.shape[-1]
        down = torch.arange(self.height, device=side.device) - corner[:, :1]
        across = torch.arange(self.width, device=side.device) - corner[:, 1:]
        shape = 2 * self.places[side] + turned
        rows = shape[:, None] * largest + down.clamp_(0, largest - 1)
        at = rows[:, :, None] * largest + across.clamp_(0, largest - 1)[:, None, :]
        return self.shapes.flatten()[at][:, None]

    def start(self, x: Tensor, index: Tensor) -> Tensor:
        """Bumps of random signs all over the image."""
        side = max(self.height // _TILES, 1)
        first = (self.height - side * _TILES) // 2 if self.height >= _TILES else 0
        places = [
            (top, left)
            for top in range(first, self.height - side + 1, side)
            for left in range(first, self.width - side + 1, side)
        ]
        draws = uniform_rows((len(places), 1 + self.channels), index, self.seed, "square start")
        upright = _bumps(side, self.norm).to(x.device)
        change = torch.zeros_like(x)
        for at, (top, left) in enumerate(places):
            turned = (draws[:, at, :1] < 0.5)[:, :, None, None]
            shape = torch.where(turned, upright.T, upright)
            signs = torch.where(draws[:, at, 1:] < 0.5, 1.0, -1.0)[:, :, None, None]
            change[:, :, top : top + side, left : left + side] = shape * signs
        # The rounding of sums may depend on the batch's shape, so it is always whole tiles.
        started = [
            self._on_ball(filled(x[part]), filled(change[part]))[: part.stop - part.start]
            for part in parts(len(x), TILE)
        ]
        return torch.cat(started)


def _bumps(side: int, norm: str) -> Tensor:
    """A bump on the upper half of a square, its negative on the lower, of norm one.

    Source: Andriushchenko et al., "Square Attack", ECCV 2020, Eq. 2.
    """
    upper = side // 2
    both = torch.cat([_bump(upper, side, norm), -_bump(side - upper, side, norm)])
    size: Tensor = torch.linalg.vector_norm(both, ord=2 if norm == "l2" else 1)
    return both / size


def _bump(height: int, width: int, norm: str) -> Tensor:
    """Square layers around the middle, the k-th of height ``1 / k^2`` (l2) or ``1 / k^4`` (l1)."""
    layers = max(height // 2, width // 2) + 1
    powers = torch.arange(1, layers + 1).double() ** (-2 if norm == "l2" else -4)
    piled = powers.flip(0).cumsum(0).flip(0)
    down = (torch.arange(height) - height // 2).abs()[:, None]
    across = (torch.arange(width) - width // 2).abs()
    bump = piled[torch.maximum(down, across)]
    order = 2 if norm == "l2" else 1
    size: Tensor = torch.linalg.vector_norm(bump, ord=order).clamp_min(_TINY)
    return (bump / size).float()
