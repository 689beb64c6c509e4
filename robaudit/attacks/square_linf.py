"""Candidates of the Square attack in linf: patches at the corners of the ball."""

from __future__ import annotations

import torch
from torch import Tensor

from robaudit.engine import uniform_rows

# Draws examined at once to find the next one that is not known to be useless.
_AHEAD = 32
# Refused patches are remembered only where there are at most so many different patches.
_REMEMBERED = 1 << 14


class Corners:
    """Patches in which every channel is set to one side of the ball.

    A patch that changes nothing, or that was refused at the same best point before, would give a
    known answer and is skipped, separately for each image.
    """

    def __init__(self, x: Tensor, index: Tensor, eps: float, sides: list[float], seed: int) -> None:
        n, self.channels, self.height, self.width = x.shape
        self.low, self.high = (x - eps).clamp_min_(0), (x + eps).clamp_max_(1)
        stripes = uniform_rows((self.channels, 1, self.width), index, seed, "square start")
        self.start = torch.where(stripes.to(x.device) < 0.5, self.high, self.low)
        whole = [min(max(round(side), 1), self.height, self.width) for side in sides]
        self.sides = torch.tensor(whole, device=x.device)
        self.codes = self._drawn(index, seed).to(x.device)
        kinds = self.height * self.width * 2**self.channels
        self.seen = torch.zeros(n, kinds, dtype=torch.bool, device=x.device)
        if kinds > _REMEMBERED:
            self.seen = self.seen[:, :0]
        self.side = torch.zeros(n, dtype=torch.long, device=x.device)
        self.last: tuple[Tensor, ...] = ()

    def _drawn(self, index: Tensor, seed: int) -> Tensor:
        """Place and signs of every query's patch in one number, ``(n, queries)``."""
        sides = self.sides.cpu()
        codes = torch.empty(len(index), len(sides), dtype=torch.int32)
        for row, at in zip(codes, index[:, None], strict=True):
            draws = uniform_rows((2 + self.channels, len(sides)), at, seed, "square")[0]
            down = (draws[0] * (self.height - sides + 1)).long()
            across = (draws[1] * (self.width - sides + 1)).long()
            code = down * self.width + across
            for sign in draws[2:] < 0.5:
                code = 2 * code + sign
            row.copy_(code)
        return codes

    def next(self, rows: Tensor, best: Tensor, query: Tensor) -> Tensor:
        """The rows that have a patch to try; ``query`` advances past it."""
        remembers = self.seen.shape[1] > 0
        at = query[rows]
        if remembers:
            skipped = self._known(rows, at)
            at = at + skipped
            query[rows] = at
            on = (skipped < _AHEAD) & (at < len(self.sides))
            rows, at = rows[on], at[on]
        query[rows] = at + 1
        code, side = self.codes[rows, at].long(), self.sides[at]
        if remembers:
            self.seen[rows[side != self.side[rows]]] = False
            self.side[rows] = side
        if len(rows) == 0:
            return rows
        place, value = self._patch(rows, code, side)
        if remembers:
            old = best.flatten(2)[rows].gather(2, place.expand_as(value))
            changed = (value != old).flatten(1).any(1)
            self.seen[rows[~changed], code[~changed]] = True
            rows, code, place, value = rows[changed], code[changed], place[changed], value[changed]
        self.last = rows, code, place, value
        return rows

    def tried(self, part: slice, best: Tensor) -> Tensor:
        """Some of the patched images."""
        rows, _, place, value = (tensor[part] for tensor in self.last)
        images = best[rows]
        images.view(len(rows), self.channels, -1).scatter_(2, place.expand_as(value), value)
        return images

    def settle(self, better: Tensor, best: Tensor) -> None:
        """Put the patches that helped into the best images."""
        rows, code, place, value = self.last
        if self.seen.shape[1]:
            self.seen[rows[~better], code[~better]] = True
            self.seen[rows[better]] = False
        rows, place, value = rows[better], place[better], value[better]
        channel = torch.arange(self.channels, device=rows.device)[:, None]
        best.view(len(best), self.channels, -1)[rows[:, None, None], channel, place] = value

    def _known(self, rows: Tensor, at: Tensor) -> Tensor:
        """How many of the next patches of each row are known to be useless."""
        ahead = at[:, None] + torch.arange(_AHEAD, device=at.device)
        inside = ahead.clamp_max(len(self.sides) - 1)
        code = self.codes[rows[:, None], inside].long()
        refused = self.seen[rows].gather(1, code) & (self.sides[inside] == self.side[rows, None])
        useless = refused & (ahead < len(self.sides))
        return useless.long().cumprod(1).sum(1)

    def _patch(self, rows: Tensor, code: Tensor, side: Tensor) -> tuple[Tensor, Tensor]:
        """Places ``(m, 1, s)`` of each patch in the flattened image and its values ``(m, c, s)``.

        Smaller patches than the largest one name their last row and column several times.
        """
        signs = []
        for _ in range(self.channels):
            signs.append(code % 2 == 1)
            code = code // 2
        up = torch.stack(signs[::-1], dim=1)[:, :, None]
        step = torch.arange(int(side.max()), device=code.device)
        step = torch.minimum(step, side[:, None] - 1)
        down, across = (code // self.width)[:, None] + step, (code % self.width)[:, None] + step
        place = (down[:, :, None] * self.width + across[:, None]).flatten(1)[:, None]
        channel = torch.arange(self.channels, device=code.device)[:, None]
        at = rows[:, None, None], channel, place
        return place, torch.where(up, self.high.flatten(2)[at], self.low.flatten(2)[at])
