"""Candidates of the Square attack in l2 and l1: pairs of opposite bumps that replace a window."""

from __future__ import annotations

import torch
from torch import Tensor

from robaudit.attacks.blocks import filled, parts
from robaudit.engine import TILE, uniform_rows
from robaudit.engine.projections import length, per_image, project_l1
from robaudit.types import ThreatModel

_TINY = 1e-12
# Tiles of bumps along one side of the starting point.
_TILES = 5


class Bumps:
    """Moves of the perturbation from one window to another; every row is at the same query."""

    def __init__(
        self, x: Tensor, index: Tensor, threat: ThreatModel, sides: list[float], seed: int
    ) -> None:
        self.x, self.norm = x, threat.norm
        # As the reference does: an l1 projection may end a rounding error outside.
        self.eps = threat.eps if self.norm == "l2" else threat.eps * (1 - 1e-6)
        _, self.channels, self.height, self.width = x.shape
        most = min(self.height, self.width)
        self.sides = [min(max(round(side), 3) // 2 * 2 + 1, most) for side in sides]
        self.draws = uniform_rows((len(sides), 5 + self.channels), index, seed, "square")
        self.draws = self.draws.transpose(0, 1).contiguous().to(x.device)
        self.start = self._tiled(index, seed)
        self.query = 0
        self.rows = self.draws.new_zeros(0, dtype=torch.long)
        self.kept: list[Tensor] = []

    def next(self, rows: Tensor, best: Tensor, query: Tensor) -> Tensor:
        """All ``rows``, as every move is new; ``query`` moves on."""
        self.query = int(query[rows[0]])
        query[rows] = self.query + 1
        self.rows, self.kept = rows, []
        return rows

    def tried(self, part: slice, best: Tensor) -> Tensor:
        """Some of the moved images."""
        # The rounding of sums may depend on the batch's shape, so it is always whole tiles.
        rows = filled(self.rows[part])
        draws, side = self.draws[self.query, rows], self.sides[self.query]
        moved = self._moved(self.x[rows], best[rows], draws, side)
        self.kept.append(moved[: part.stop - part.start])
        return self.kept[-1]

    def settle(self, better: Tensor, best: Tensor) -> None:
        """Keep the moves that helped."""
        best[self.rows[better]] = torch.cat(self.kept)[better]

    def _moved(self, x: Tensor, best: Tensor, draws: Tensor, side: int) -> Tensor:
        n, channels, height, width = x.shape
        change = (best - x).view(n, channels, height * width)
        low_high = torch.tensor([height - side + 1, width - side + 1] * 2, device=x.device)
        corner = (draws[:, :4] * low_high).long()
        here = self._window(corner[:, 0], corner[:, 1], side)
        there = self._window(corner[:, 2], corner[:, 3], side)
        both = torch.zeros(n, height * width, dtype=torch.bool, device=x.device)
        both = both.scatter(1, here, True).scatter(1, there, True)[:, None]
        taken = self._sizes(change.masked_fill(~both, 0))
        spare = self._sizes(change.view(n, 1, -1))
        here_all = here[:, None].expand(-1, channels, -1)
        old = change.gather(2, here_all)
        shape = self._shapes(side, draws[:, 4] < 0.5)[:, None]
        signs = torch.where(draws[:, 5:] < 0.5, 1.0, -1.0)[:, :, None]
        new = shape * signs + old / (self._sizes(old) + _TINY)
        if self.norm == "l2":
            free = (self.eps**2 - spare**2).clamp_min_(0) / channels
            size = (free + taken**2).sqrt()
        else:
            free = (self.eps - spare).clamp_min_(0) / channels
            size = (free + taken) * channels
        new = new / (self._sizes(new) + _TINY) * size
        change = change.scatter(2, there[:, None].expand(-1, channels, -1), 0.0)
        change = change.scatter(2, here_all, new)
        return self._on_ball(x, change.view_as(x))

    def _on_ball(self, x: Tensor, change: Tensor) -> Tensor:
        if self.norm == "l2":
            size = length(change, "l2") + _TINY
            return (x + change * per_image(change, self.eps / size)).clamp_(0, 1)
        return project_l1(x + change, x, self.eps)

    def _sizes(self, rows: Tensor) -> Tensor:
        """The norm over the last axis, kept."""
        order = 2 if self.norm == "l2" else 1
        found: Tensor = torch.linalg.vector_norm(rows, ord=order, dim=-1, keepdim=True)
        return found

    def _window(self, down: Tensor, across: Tensor, side: int) -> Tensor:
        """Places of a window's pixels in the flattened image, ``(n, side^2)``."""
        step = torch.arange(side, device=down.device)
        y = (down[:, None] + step)[:, :, None] * self.width
        return (y + (across[:, None] + step)[:, None, :]).flatten(1)

    def _shapes(self, side: int, turned: Tensor) -> Tensor:
        """The bumps of one side, upright or turned, ``(n, side^2)``."""
        upright = _bumps(side, self.norm).to(turned.device)
        return torch.where(turned[:, None], upright.T.flatten(), upright.flatten())

    def _tiled(self, index: Tensor, seed: int) -> Tensor:
        """The starting points: bumps of random signs all over the image."""
        x = self.x
        side = max(self.height // _TILES, 1)
        first = (self.height - side * _TILES) // 2 if self.height >= _TILES else 0
        places = [
            (top, left)
            for top in range(first, self.height - side + 1, side)
            for left in range(first, self.width - side + 1, side)
        ]
        draws = uniform_rows((len(places), 1 + self.channels), index, seed, "square start")
        draws = draws.to(x.device)
        change = torch.zeros_like(x)
        for at, (top, left) in enumerate(places):
            shape = self._shapes(side, draws[:, at, 0] < 0.5).view(-1, 1, side, side)
            signs = torch.where(draws[:, at, 1:] < 0.5, 1.0, -1.0)[:, :, None, None]
            change[:, :, top : top + side, left : left + side] = shape * signs
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
