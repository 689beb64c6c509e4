"""Runs an attack on any number of examples, a part of them at a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from robaudit.attacks.blocks import check_finite, parts
from robaudit.attacks.result import AttackResult
from robaudit.engine import Runner
from robaudit.engine.images import StoredImages, rows_of
from robaudit.engine.spilled import copied
from robaudit.types import Cache, Progress, no_cache

# Fields that are images.
_IMAGES = ("x", "nearest", "broken_x")


@dataclass(frozen=True)
class Chunk:
    """Some of the examples, on the runner's device.

    Attributes:
        x, y: images ``(m, c, h, w)`` and labels ``(m,)``.
        logits, correct: ``(m, k)`` at the clean images, and ``(m,)`` bool.
        index: ``(m,)`` their positions in their data set.
        rows: which of the examples they are.
        tick: takes the share of the part's work that is done, between 0 and 1.
    """

    x: Tensor
    y: Tensor
    logits: Tensor
    correct: Tensor
    index: Tensor
    rows: slice
    tick: Callable[[float], None]

    def tick_of(self, restart: int, restarts: int) -> Callable[[float], None]:
        """As ``tick``, with the share of one restart's work."""
        return lambda share: self.tick((restart + share) / restarts)


def run_in_parts(
    runner: Runner,
    x: Tensor,
    y: Tensor,
    index: Tensor | None,
    size: int,
    attack: Callable[[Chunk], dict[str, Tensor]],
    *,
    searcher: Runner | None = None,
    cache: Cache = no_cache,
    progress: Progress | None = None,
) -> AttackResult:
    """Run ``attack`` on at most ``size`` examples at a time and join its results.

    The clean images are classified here, so that every attack counts them alike.

    Args:
        attack: gives per-example fields of :class:`AttackResult` by name, at least ``x`` and
            ``robust``; ``loss`` is ``nan`` where it gives none.
        searcher: another runner whose passes count.
        cache: keeps each finished part.

    Raises:
        NotMeasuredError: logits that are not finite.
    """
    index = torch.arange(len(x)) if index is None else index
    images: dict[str, Tensor] = {}
    pieces: list[dict[str, Tensor]] = []
    for rows in parts(len(x), size):

        def tick(share: float, rows: slice = rows) -> None:
            if progress is not None:
                done = rows.start + min(share, 1.0) * (rows.stop - rows.start)
                progress(round(1000 * done), 1000 * len(x))

        def run(
            rows: slice = rows, tick: Callable[[float], None] = tick, index: Tensor = index
        ) -> dict[str, Tensor]:
            before = _passes(runner, searcher)
            images, labels = rows_of(x, rows, runner.device), y[rows].to(runner.device)
            logits = runner.logits(images)
            check_finite(logits)
            correct = logits.argmax(1) == labels
            own = index[rows].to(runner.device)
            found = attack(Chunk(images, labels, logits, correct, own, rows, tick))
            cpu = {name: values.cpu() for name, values in {**found, "correct": correct}.items()}
            return {**cpu, "passes": _passes(runner, searcher) - before}

        piece = cache(f"{rows.start:07d}-{rows.stop:07d}", run)
        for name in (name for name in _IMAGES if name in piece):
            base = images["x"] if name == "broken_x" else x
            if name not in images:
                images[name] = copied(base)
            _write(images[name], rows, piece[name], base)
        pieces.append({name: piece[name] for name in piece if name not in _IMAGES})
    if progress is not None:
        progress(1000 * len(x), 1000 * len(x))
    columns = {name: torch.cat([piece[name] for piece in pieces]) for name in pieces[0]}
    forwards, backwards = columns.pop("passes").reshape(-1, 2).sum(0).tolist()
    columns.setdefault("loss", torch.full((len(x),), torch.nan))
    return AttackResult(**images, **columns, forwards=forwards, backwards=backwards)  # type: ignore[arg-type]


def _write(into: Tensor, rows: slice, images: Tensor, base: Tensor) -> None:
    """Write images; where they go to a file, only those that differ from what they are based on."""
    if not isinstance(into, StoredImages):
        into[rows] = images
        return
    differ = (images != rows_of(base, rows, images.device)).flatten(1).any(1)
    into[rows.start + torch.nonzero(differ)[:, 0]] = images[differ]


def _passes(*runners: Runner | None) -> Tensor:
    used = [(runner.forwards, runner.backwards) for runner in runners if runner is not None]
    return torch.tensor(used).sum(0)
