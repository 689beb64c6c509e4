"""Candidates of the Square attack in linf: patches at the corners of the ball."""

from __future__ import annotations

import copy
from collections.abc import Iterable

import torch
from torch import Tensor

from robaudit.attacks.square_draws import Drawing, Draws, inside, unrounded_sides
from robaudit.engine import uniform_rows
from robaudit.engine.seeding import key_of


class Corners:
    """Patches in which every channel is set to one side of the ball."""

    def __init__(self, x: Tensor, eps: float, schedule: Iterable[int], seed: int) -> None:
        _, self.channels, self.height, self.width = x.shape
        self.eps, self.seed = eps, seed
        most = min(self.height, self.width)
        sides = [min(max(round(side), 1), most) for side in unrounded_sides(schedule, x.shape)]
        whole = torch.tensor(sides, device=x.device)
        key = key_of(seed, "square")
        self.drawn = Drawing(self.height, self.width, whole, 1, self.channels, key)

    def start(self, x: Tensor, index: Tensor) -> Tensor:
        """Vertical stripes, each at one side of the ball."""
        stripes = uniform_rows((self.channels, 1, self.width), index, self.seed, "square start")
        return self._sides(x, stripes < 0.5)

    def candidates(self, x: Tensor, best: Tensor, draws: Draws) -> Tensor:
        """The best images with a patch each."""
        here = inside(draws.corners, draws.side, self.height, self.width)
        return torch.where(here, self._sides(x, draws.coins[:, :, None, None]), best)

    def on(self, device: torch.device) -> Corners:
        """The same on a device."""
        moved = copy.copy(self)
        moved.drawn = self.drawn.on(device)
        return moved

    def _sides(self, x: Tensor, up: Tensor) -> Tensor:
        """``x`` at the upper or the lower side of the ball."""
        return (x + up.to(x.dtype).mul_(2).sub_(1).mul_(self.eps)).clamp_(0, 1)
