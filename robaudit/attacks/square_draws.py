"""What the Square attack draws at a query: windows of an image, and coins for signs."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from robaudit.engine.philox import words

# The share of the pixels that a patch covers at first, and the queries at which it halves.
P_INIT = 0.8
HALVES_AFTER = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
_BITS = 32


def unrounded_sides(schedule: Iterable[int], shape: torch.Size) -> list[float]:
    """The side of the patch at each query of a schedule for images ``(n, c, h, w)``."""
    shares = (P_INIT / 2 ** sum(query > after for after in HALVES_AFTER) for query in schedule)
    return [math.sqrt(share * shape[-2] * shape[-1]) for share in shares]


class Draws(NamedTuple):
    """One row for each image, or one row and column for each image and query.

    Attributes:
        corners: ``(..., 2 k)`` the upper and left edges of ``k`` windows.
        coins: ``(..., f)`` bool.
        side: ``(...)`` of the windows.
    """

    corners: Tensor
    coins: Tensor
    side: Tensor


@dataclass(frozen=True)
class Drawing:
    """How the draws of every query are made; they depend on seed, example and query alone.

    Attributes:
        height, width: of the images.
        sides: ``(queries,)`` the windows' sides.
        windows, coins: how many a query needs.
        key: of the random words.
    """

    height: int
    width: int
    sides: Tensor
    windows: int
    coins: int
    key: tuple[int, int]

    def on(self, device: torch.device) -> Drawing:
        """The same on a device."""
        return replace(self, sides=self.sides.to(device))

    def __call__(self, index: Tensor, query: Tensor) -> Draws:
        """The draws of examples ``index``, ``(n,)``, at queries ``(q,)``, in rows and columns.

        Every place inside the image is as likely as any other.
        """
        side = self.sides[query]
        places, bits = 2 * self.windows, -(-self.coins // _BITS)
        drawn = words(self.key, index[:, None], query, places + bits)
        ends = torch.stack([self.height - side + 1, self.width - side + 1] * self.windows, dim=-1)
        corners = (drawn[..., :places] * ends) >> _BITS
        bit = torch.arange(min(_BITS, self.coins), device=query.device)
        shifted = drawn[..., places:, None] >> bit
        coins = (shifted & 1).bool().flatten(2)[..., : self.coins]
        return Draws(corners, coins, side[None].expand(len(index), -1))


def inside(corners: Tensor, side: Tensor, height: int, width: int) -> Tensor:
    """Which pixels are in a window, ``(n, 1, h, w)`` bool, from ``(n, 2)`` corners and sides."""
    down = torch.arange(height, device=corners.device) - corners[:, :1]
    across = torch.arange(width, device=corners.device) - corners[:, 1:]
    rows = (down >= 0) & (down < side[:, None])
    columns = (across >= 0) & (across < side[:, None])
    return rows[:, None, :, None] & columns[:, None, None, :]
