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
from robaudit.engine.captured import Captured
from robaudit.engine.several import over_devices

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
        passed: how many candidates differed from the best point, where there is a limit.
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

    def on(self, device: torch.device) -> Proposals:
        """The same on a device."""
        ...


class Step:
    """One query of some images; every tensor has its place in memory and its shape for good.

    Args:
        network: on the device of the images.
        like: as many images, on that device.
        most: as in :func:`search_in_steps`.
    """

    def __init__(
        self, network: Captured, proposals: Proposals, like: Searched, most: int | None
    ) -> None:
        size = len(like.y)
        self.network, self.most = network, most
        self.proposals = proposals.on(like.y.device)
        self.own = Searched(*(whole.new_zeros(size, *whole.shape[1:]) for whole in like))
        one = self.proposals.drawn(like.example[:1], like.example.new_zeros(1))
        self.draws = Draws(*(part.new_zeros(size, _MOST, *part.shape[2:]) for part in one))
        self.at = like.example.new_zeros(1)
        self.finite = like.broken.new_ones(())
        self.replay: Callable[[], object] | None = None

    def run(self, images: Searched, first: int, count: int, record: bool) -> None:
        """``count`` queries from ``first`` on, in the arithmetic that the caller has set."""

        def load() -> None:
            self._load(images, first, count)

        load()
        if record and self.replay is None:
            self.replay = self.network.repeated(self.query, self.own.x, load)
        once = self.replay or self.query
        for _ in range(count):
            once()

    @torch.no_grad()
    def query(self) -> Tensor:
        """The next query, and the logits at its candidates; nothing is read by the host."""
        own = self.own
        draws = Draws(*(part.index_select(1, self.at).squeeze(1) for part in self.draws))
        candidates = self.proposals.candidates(own.x, own.best_x, draws)
        logits = self.network.plain(candidates)
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

    def _load(self, images: Searched, first: int, count: int) -> None:
        """Copies of the images, and their draws."""
        for own, given in zip(self.own, images, strict=True):
            own.copy_(given)
        queries = torch.arange(first, first + count, device=self.at.device)
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
    steps: dict[tuple[int, int], Step] = {}
    networks = runner.networks(searched.x)
    least = 1 if runner.device.type == "cpu" else _LEAST_ON_GPU
    done = 0
    while done < queries:
        live = ~searched.broken if most is None else ~searched.broken & (searched.passed < most)
        rows = torch.nonzero(live)[:, 0]
        if len(rows) == 0:
            return
        count = min(max(least, int(_SHARE * done)), _MOST, queries - done)

        def queried(at: int, images: Searched, done: int = done, count: int = count) -> Step:
            key = at, len(images.y)
            if key not in steps:
                steps[key] = Step(networks[at], proposals, images, most)
            steps[key].run(images, done, count, queries - done >= _WORTH)
            return steps[key]

        while len(rows):
            parts = _round(rows, runner)
            images = (
                _taken(searched, part, runner.batch, device)
                for part, device in zip(parts, runner.devices, strict=False)
            )
            try:
                with arithmetic(runner.network.precision):
                    made = list(over_devices(runner.devices, images, queried))
            except torch.cuda.OutOfMemoryError:
                steps.clear()
                if not runner.back_off(networks):
                    raise
                continue
            for part, step in zip(parts, made, strict=True):
                for whole, own in zip(searched, step.own, strict=True):
                    whole[part] = own[: len(part)].to(whole.device)
                check_finite(torch.where(step.finite, 0.0, torch.nan))
                runner.forwards += count * len(part)
            rows = rows[sum(map(len, parts)) :]
        done += count
        tick(done / queries)


def _round(rows: Tensor, runner: Runner) -> list[Tensor]:
    """The next rows for every device, as many for each; on a CPU a tile, whatever the devices."""
    several = len(runner.devices)
    share = runner.batch
    if runner.device.type != "cpu":
        share = min(share, -(-len(rows) // several))
    return list(torch.split(rows, share)[:several])


def _taken(searched: Searched, rows: Tensor, batch: int, device: torch.device) -> Searched:
    """Copies of rows of the images, the last one repeated, on a device."""
    filled = torch.cat([rows, rows[-1:].expand(_padded(len(rows), batch) - len(rows))])
    return Searched(*(whole[filled].to(device) for whole in searched))


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
