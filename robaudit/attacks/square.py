"""Square attack: random search by square patches, from logits alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from robaudit.attacks.blocks import check_finite, filled, parts, rows_at_once
from robaudit.attacks.driver import Chunk, run_in_parts
from robaudit.attacks.objectives import margin
from robaudit.attacks.result import AttackResult
from robaudit.attacks.square_l2 import Bumps
from robaudit.attacks.square_linf import Corners
from robaudit.engine import Runner
from robaudit.engine.arguments import checked
from robaudit.engine.runner import BatchSize
from robaudit.types import Cache, Progress, ThreatModel, no_cache

# The share of the pixels that a patch covers at first, and the queries at which it halves.
P_INIT = 0.8
HALVES_AFTER = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)


class Proposals(Protocol):
    """The candidates of some images, query after query, from their starting points ``start``."""

    start: Tensor

    def next(self, rows: Tensor, best: Tensor, query: Tensor) -> Tensor:
        """The rows among ``rows`` that have a candidate; advances ``query``.

        Args:
            rows: ``(m,)`` positions.
            best, query: best images and number of queries used, of all images.
        """
        ...

    def tried(self, part: slice, best: Tensor) -> Tensor:
        """The candidates of a part of those rows."""
        ...

    def settle(self, better: Tensor, best: Tensor) -> None:
        """Put the candidates that helped, ``(m,)`` bool, into the best images."""
        ...


@checked
def square(
    model: nn.Module | Runner,
    x: Tensor,
    y: Tensor,
    threat: ThreatModel,
    *,
    queries: int = 5000,
    seed: int = 0,
    index: Tensor | None = None,
    batch_size: BatchSize = "auto",
    cache: Cache = no_cache,
    progress: Progress | None = None,
) -> AttackResult:
    """Square attack: raise the margin by patches at random places, without gradients.

    linf: a patch sets every channel to one side of the ball. l2 and l1: a patch takes over the
    perturbation of another window, in the shape of two opposite bumps. A patch is kept if it raises
    the margin. Patches that cannot help, because they change nothing or were refused at the same
    point before, are drawn but not passed through the network, which would give the same answer.

    Args:
        model: maps images in ``[0, 1]`` to logits ``(n, k)``; it runs in evaluation mode
            with frozen parameters and is left as it was. Or a :class:`robaudit.engine.Runner`.
        x, y: images ``(n, c, h, w)`` in ``[0, 1]`` and labels ``(n,)`` from 0.
        threat: norm and radius of the perturbations.
        queries: patches drawn for each example, after the starting point.
        seed: of all random draws.
        index: ``(n,)`` the examples' positions in their data set; each example's draws depend on
            its position and the seed only. ``0..n-1`` unless given.
        batch_size: images per pass on a GPU; no result depends on it. A Runner has its own.
        cache: keeps each finished part of the examples, so that an interrupted run can continue.
        progress: called with the work done and the work in all.

    Returns:
        All common fields; ``loss`` is ``nan``.

    Raises:
        NotMeasuredError: logits that are not finite.

    Source: Andriushchenko, Croce, Flammarion & Hein, "Square Attack: a query-efficient black-box
    adversarial attack via random search", ECCV 2020, with the schedule of AutoAttack; l1 from Croce
    & Hein, "Mind the box", ICML 2021.

    >>> net = nn.Sequential(nn.Flatten(), nn.Linear(36, 2))
    >>> x, y = torch.rand(3, 1, 6, 6), torch.zeros(3).long()
    >>> found = square(net, x, y, ThreatModel("linf", 0.1), queries=20)
    >>> found.backwards
    0
    """
    with Runner.of(model, batch_size) as runner:

        def attack(part: Chunk) -> dict[str, Tensor]:
            found, robust = searched(runner, part, threat, queries, seed)
            # An image that stands is given as it was.
            found[robust] = part.x[robust]
            return {"x": found, "robust": robust}

        size = rows_at_once(runner, x)
        return run_in_parts(runner, x, y, index, size, attack, cache=cache, progress=progress)


def searched(
    runner: Runner,
    part: Chunk,
    threat: ThreatModel,
    queries: int,
    seed: int,
    *,
    start: Tensor | None = None,
    **how: Any,
) -> tuple[Tensor, Tensor]:
    """The points ``(m, c, h, w)`` that :func:`search` finds, and which images stand, ``(m,)`` bool.

    Only images that are classified correctly are searched; the others are given as they were.

    Args:
        start: for every image of the part.
        how: further arguments of the search.
    """
    found, robust = part.x.clone(), part.correct.clone()
    rows = torch.nonzero(robust)[:, 0]
    if len(rows):
        index, begin = part.index[rows.cpu()], None if start is None else start[rows]
        own = (part.x[rows], part.y[rows], index, threat, queries, seed, part.tick)
        found[rows], broken = search(runner, *own, start=begin, **how)
        robust[rows[broken]] = False
    return found, robust


def search(
    runner: Runner,
    x: Tensor,
    y: Tensor,
    index: Tensor,
    threat: ThreatModel,
    queries: int,
    seed: int,
    tick: Callable[[float], None],
    *,
    start: Tensor | None = None,
    schedule: Sequence[int] | None = None,
    most: int | None = None,
) -> tuple[Tensor, Tensor]:
    """The best points ``(n, c, h, w)`` and which of them are misclassified, ``(n,)`` bool.

    Args:
        x, y: correctly classified images and their labels.
        tick: takes the share of the work that is done.
        start: ``(n, c, h, w)`` where the search begins, instead of Square's stripes or bumps.
        schedule: for each query the one of a whole attack whose patches have its size.
        most: passes on an image, without the start; some patches need none.
    """
    sides = [_side(query, x.shape) for query in schedule or range(queries)]
    draws: Proposals
    if threat.norm == "linf":
        draws = Corners(x, index, threat.eps, sides, seed)
    else:
        draws = Bumps(x, index, threat, sides, seed)
    best_x = draws.start if start is None else start.clone()
    best, broken = _judged(_logits(runner, best_x), y)
    query, passed = torch.zeros_like(y), torch.zeros_like(y)
    most = queries if most is None else most
    told = 0
    while True:
        rows = torch.nonzero(~broken & (query < queries) & (passed < most))[:, 0]
        if len(rows) == 0:
            return best_x, broken
        behind = int(query[rows].min())
        if behind >= told + queries // 100 + 1:
            told = behind
            tick(behind / queries)
        asked = draws.next(rows, best_x, query)
        if len(asked) == 0:
            continue
        logits = [
            _logits(runner, draws.tried(part, best_x))
            for part in parts(len(asked), runner.per_round)
        ]
        values, wrong = _judged(torch.cat(logits), y[asked])
        passed[asked] += 1
        better = (values > best[asked]) | wrong
        best[asked[better]] = values[better]
        broken[asked[wrong]] = True
        draws.settle(better, best_x)


def _logits(runner: Runner, x: Tensor) -> Tensor:
    return runner.logits(filled(x), len(x))[: len(x)]


def _judged(logits: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Margins, and which images are misclassified."""
    check_finite(logits)
    return margin(logits, y), logits.argmax(1) != y


def _side(query: int, shape: torch.Size | tuple[int, ...]) -> float:
    """The side of the patch at a query, before it is rounded."""
    share = P_INIT / 2 ** sum(query > after for after in HALVES_AFTER)
    return math.sqrt(share * shape[-2] * shape[-1])
