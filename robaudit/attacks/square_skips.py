"""The Square attack in linf without the passes whose answer is known."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from robaudit.attacks.blocks import check_finite, parts
from robaudit.attacks.square_draws import Draws
from robaudit.attacks.square_linf import Corners
from robaudit.attacks.square_steps import Searched, differ, judged
from robaudit.engine import TILE, Runner

# Draws examined at once to find the next one that is not known to be useless.
_AHEAD = 32
# Queries that are drawn at once, twice as many are kept.
_DRAWN = 256
# Refused patches are remembered only where there are at most so many different patches.
_REMEMBERED = 1 << 14
# Why a patch is useless at the best point as it is: it changes nothing, or it does not help.
_NOTHING, _REFUSED = 1, 2


def remembers(proposals: object) -> bool:
    """Whether refused patches can be remembered."""
    if not isinstance(proposals, Corners):
        return False
    kinds: int = proposals.height * proposals.width * 2**proposals.channels
    return kinds <= _REMEMBERED


def search_with_skips(
    runner: Runner,
    proposals: Corners,
    searched: Searched,
    queries: int,
    most: int | None,
    tick: Callable[[float], None],
) -> None:
    """As :func:`~robaudit.attacks.square_steps.search_in_steps`, with the same results.

    A patch that changes nothing, or that was refused at the same best point before, would give a
    known answer and is skipped. So each image goes at its own pace, and leaves once it is broken.
    """
    x, y, _, best_x, best, broken, passed = searched
    patches = _Patches(proposals, searched.example, queries)
    query, told = torch.zeros_like(y), 0
    while True:
        live = ~broken & (query < queries)
        rows = torch.nonzero(live if most is None else live & (passed < most))[:, 0]
        if len(rows) == 0:
            return
        behind = int(query[rows].min())
        if behind >= told + queries // 100 + 1:
            told = behind
            tick(behind / queries)
        patches.draw(rows, behind)
        rows, code, draws = patches.next(rows, query, passed, most)
        tried, places = [], []
        for part in parts(len(rows), TILE):
            own, clean = (images.index_select(0, rows[part]) for images in (best_x, x))
            patched = proposals.candidates(clean, own, Draws(*(each[part] for each in draws)))
            change = torch.nonzero(differ(patched, own))[:, 0]
            tried.append(patched.index_select(0, change))
            places.append(change + part.start)
        if not tried:
            continue
        changed = torch.cat(places)
        patches.useless[rows, code] = _NOTHING
        rows, code, candidates = rows[changed], code[changed], torch.cat(tried)
        if len(rows) == 0:
            continue
        logits = runner.logits(candidates)
        check_finite(logits)
        values, wrong = judged(logits, y[rows])
        if most is not None:
            passed[rows] += 1
        better = wrong | (values > best[rows])
        patches.useless[rows, code] = _REFUSED
        patches.useless[rows[better]] = 0
        best[rows[better]], best_x[rows[better]] = values[better], candidates[better]
        broken[rows[wrong]] = True


class _Patches:
    """The patches of the next queries, as one number each for place and coins; the useless ones."""

    def __init__(self, proposals: Corners, index: Tensor, queries: int) -> None:
        self.proposals, self.index, self.queries = proposals, index, queries
        kinds = proposals.height * proposals.width * 2**proposals.channels
        self.useless = torch.zeros(len(index), kinds, dtype=torch.uint8, device=index.device)
        self.side = torch.zeros_like(index)
        self.codes = torch.zeros(len(index), 2 * _DRAWN, dtype=torch.int16, device=index.device)
        self.end = 0

    def draw(self, rows: Tensor, behind: int) -> None:
        """Draw for these rows, if the slowest of them, at query ``behind``, needs it soon."""
        while self.end < min(behind + _DRAWN, self.queries):
            query = torch.arange(self.end, min(self.end + _DRAWN, self.queries))
            drawn = self.proposals.drawn(self.index[rows], query.to(rows.device))
            places = drawn.corners[..., 0] * self.proposals.width + drawn.corners[..., 1]
            for coin in drawn.coins.unbind(-1):
                places = 2 * places + coin
            self.codes[rows[:, None], query % (2 * _DRAWN)] = places.short()
            self.end += _DRAWN

    def next(
        self, rows: Tensor, query: Tensor, passed: Tensor, most: int | None
    ) -> tuple[Tensor, Tensor, Draws]:
        """The rows with a patch that is not known to be useless, and those patches.

        ``query`` and ``passed`` advance past the useless ones, and ``query`` past that patch. Rows
        that are ahead of what is drawn wait.
        """
        end = min(self.end, self.queries)
        at = query[rows]
        ahead = at[:, None] + torch.arange(_AHEAD, device=at.device)
        drawn, kinds = self.codes.shape[1], self.useless.shape[1]
        codes = self.codes.take(rows[:, None] * drawn + ahead % drawn).long()
        sides = self.proposals.drawn.sides.take(ahead.clamp_max(self.queries - 1))
        why = self.useless.take(rows[:, None] * kinds + codes)
        known = (why > 0) & (sides == self.side[rows, None]) & (ahead < end)
        skips = known.long().cumprod(1)
        skipped = skips.sum(1)
        query[rows] = at + skipped
        on = (skipped < _AHEAD) & (at + skipped < end)
        if most is not None:
            passed[rows] += (skips * (why == _REFUSED)).sum(1)
            on &= passed[rows] < most
        rows, skipped = rows[on], skipped[on, None]
        query[rows] += 1
        code, side = codes[on].gather(1, skipped)[:, 0], sides[on].gather(1, skipped)[:, 0]
        self.useless[rows[side != self.side[rows]]] = 0
        self.side[rows] = side
        return rows, code, self._draws(code, side)

    def _draws(self, code: Tensor, side: Tensor) -> Draws:
        bit = torch.arange(self.proposals.channels - 1, -1, -1, device=code.device)
        place = code >> self.proposals.channels
        corners = torch.stack([place // self.proposals.width, place % self.proposals.width], dim=1)
        return Draws(corners, (code[:, None] >> bit & 1).bool(), side)
