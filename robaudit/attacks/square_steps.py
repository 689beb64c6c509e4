"""One query of the Square attack for a block of images, as a step that can be recorded.

Draws, candidates, verdicts and the counter of queries stay on the device. After every few queries
the images that broke leave, and the others are packed again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from robaudit.attacks.blocks import check_finite, put
from robaudit.attacks.objectives import margin
from robaudit.attacks.square_draws import Drawing, Draws
from robaudit.engine import TILE, Runner, arithmetic

# Queries until broken images leave: a share of those that are done, as most break early.
_SHARE, _MOST = 1 / 8, 250
_LEAST_ON_GPU = 16
# The fewest queries for which it pays to record a step.
_WORTH = 40


class Searched(NamedTuple):
    """Images under attack: one entry of each tensor for each of them, changed in place.

    Attributes:
        x, y, example: images, labels and positions in the data set.
        best_x, best: the points with the highest margin, and their margin.
        broken: bool; misclassified at that point.
        passed: how many candidates differed from the best point.
    """

    x: Tensor
    y: Tensor
    example: Tensor
    best_x: Tensor
    best: Tensor
    broken: Tensor
    passed: Tensor


class Proposals(Protocol):
    """Candidates as a function of an image, the best point so far, and a query's draws."""

    @property
    def drawn(self) -> Drawing:
        """Makes the draws."""
        ...

    def start(self, x: Tensor, index: Tensor) -> Tensor:
        """Where the search begins."""
        ...

    def candidates(self, x: Tensor, best: Tensor, draws: Draws) -> Tensor:
        """Candidates in the shape of ``x``, in memory of their own."""
        ...


class Step:
    """One query of ``size`` images; every tensor has its place in memory and its shape for good.

    Args:
        like: tensors of the types and shapes that the step has.
        most: as in :func:`search_in_steps`.
    """

    def __init__(
        self, runner: Runner, proposals: Proposals, like: Searched, size: int, most: int | None
    ) -> None:
        self.runner, self.proposals, self.most = runner, proposals, most
        self.own = Searched(*(whole.new_zeros(size, *whole.shape[1:]) for whole in like))
        one = proposals.drawn(like.example[:1], like.example.new_zeros(1))
        self.draws = Draws(*(part.new_zeros(size, _MOST, *part.shape[2:]) for part in one))
        self.at = like.example.new_zeros(1)
        self.finite = like.broken.new_ones(())
        self.replay: Callable[[], object] | None = None

    def run(self, searched: Searched, rows: Tensor, first: int, count: int, record: bool) -> None:
        """``count`` queries from ``first`` on, of some rows of the images, at most ``size``."""
        network = self.runner.network

        def load() -> None:
            self._load(searched, rows, first, count)

        load()
        with arithmetic(network.precision):
            if record and self.replay is None:
                self.replay = network.repeated(self.query, self.own.x, load)
            once = self.replay or self.query
            for _ in range(count):
                once()
        self.runner.forwards += count * len(rows)
        for whole, own in zip(searched, self.own, strict=True):
            whole[rows] = own[: len(rows)]

    @torch.no_grad()
    def query(self) -> Tensor:
        """The next query, and the logits at its candidates; nothing is read by the host."""
        own = self.own
        draws = Draws(*(part.index_select(1, self.at).squeeze(1) for part in self.draws))
        candidates = self.proposals.candidates(own.x, own.best_x, draws)
        logits = self.runner.network.plain(candidates)
        values, wrong = judged(logits, own.y)
        live = ~own.broken
        if self.most is not None:
            live = live & (own.passed < self.most)
            own.passed.add_(live & differ(candidates, own.best_x))
        better = live & (wrong | (values > own.best))
        self.finite.logical_and_((logits.isfinite().all(1) | ~live).all())
        own.best.copy_(torch.where(better, values, own.best))
        own.best_x.copy_(put(own.best_x, better, candidates))
        own.broken.logical_or_(live & wrong)
        self.at.add_(1)
        return logits

    def _load(self, searched: Searched, rows: Tensor, first: int, count: int) -> None:
        """Copies of the rows, the last one repeated, and their draws."""
        filled = torch.cat([rows, rows[-1:].expand(len(self.own.y) - len(rows))])
        for own, whole in zip(self.own, searched, strict=True):
            own.copy_(whole[filled])
        queries = torch.arange(first, first + count, device=rows.device)
        for part, drawn in zip(
            self.draws, self.proposals.drawn(self.own.example, queries), strict=True
        ):
            part[:, :count].copy_(drawn)
        self.at.zero_()
        self.finite.fill_(True)


def search_in_steps(
    runner: Runner,
    proposals: Proposals,
    searched: Searched,
    queries: int,
    most: int | None,
    tick: Callable[[float], None],
) -> None:
    """Search all images, in blocks of few sizes.

    Args:
        most: candidates that differ from the best point, on an image; any number unless given.
        tick: takes the share of the work that is done.

    Raises:
        NotMeasuredError: logits that are not finite.
    """
    steps: dict[int, Step] = {}
    least = 1 if runner.device.type == "cpu" else _LEAST_ON_GPU
    done = 0
    while done < queries:
        live = ~searched.broken if most is None else ~searched.broken & (searched.passed < most)
        rows = torch.nonzero(live)[:, 0]
        if len(rows) == 0:
            return
        count = min(max(least, int(_SHARE * done)), _MOST, queries - done)
        record = queries - done >= _WORTH
        while len(rows):
            part = rows[: runner.batch]
            size = _padded(len(part), runner.batch)
            try:
                if size not in steps:
                    steps[size] = Step(runner, proposals, searched, size, most)
                steps[size].run(searched, part, done, count, record)
            except torch.cuda.OutOfMemoryError:
                steps.clear()
                if not runner.back_off():
                    raise
                continue
            check_finite(torch.where(steps[size].finite, 0.0, torch.nan))
            rows = rows[len(part) :]
        done += count
        tick(done / queries)


def judged(logits: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Margins, and which images are misclassified."""
    return margin(logits, y), logits.argmax(1) != y


def differ(images: Tensor, others: Tensor) -> Tensor:
    """Which of the images ``(n, c, h, w)`` differ from the others, ``(n,)`` bool."""
    return (images - others).abs().flatten(1).amax(1) > 0


def _padded(n: int, batch: int) -> int:
    """The size of the block for so many images: a power of two of tiles, at most the batch."""
    size = TILE
    while size < min(n, batch):
        size *= 2
    return min(size, batch)
