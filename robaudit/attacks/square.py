"""Square attack: random search by square patches, from logits alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from robaudit.attacks.blocks import check_finite, rows_at_once
from robaudit.attacks.driver import Chunk, run_in_parts
from robaudit.attacks.result import AttackResult
from robaudit.attacks.square_l2 import Bumps
from robaudit.attacks.square_linf import Corners
from robaudit.attacks.square_skips import remembers, search_with_skips
from robaudit.attacks.square_steps import Proposals, Searched, judged, search_in_steps
from robaudit.engine import Runner
from robaudit.engine.arguments import checked
from robaudit.engine.runner import BatchSize
from robaudit.types import Cache, Progress, ThreatModel, no_cache


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
        index, begin = part.index[rows], None if start is None else start[rows]
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
        most: patches that change an image; any number unless given.
    """
    schedule = range(queries) if schedule is None else schedule
    proposals: Proposals
    if threat.norm == "linf":
        proposals = Corners(x, threat.eps, schedule, seed)
    else:
        proposals = Bumps(x, threat, schedule, seed)
    index = index.to(x.device)
    begin = proposals.start(x, index) if start is None else start.clone()
    logits = runner.logits(begin)
    check_finite(logits)
    searched = Searched(x, y, index, begin, *judged(logits, y), torch.zeros_like(y))
    if x.device.type == "cpu" and isinstance(proposals, Corners) and remembers(proposals):
        search_with_skips(runner, proposals, searched, queries, most, tick)
    else:
        search_in_steps(runner, proposals, searched, queries, most, tick)
    return searched.best_x, searched.broken
