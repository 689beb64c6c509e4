"""Random patches on points that another attack has reached."""

from __future__ import annotations

from torch import Tensor, nn

from robaudit.attacks.blocks import rows_at_once
from robaudit.attacks.driver import Chunk, run_in_parts
from robaudit.attacks.result import AttackResult
from robaudit.attacks.square import searched
from robaudit.engine import Runner
from robaudit.engine.images import rows_of
from robaudit.engine.runner import BatchSize
from robaudit.types import Cache, Progress, ThreatModel, no_cache

# The queries of a whole Square attack whose patches have the sizes of the first and the last one.
FIRST, LAST = 500, 4500


def patches(
    model: nn.Module | Runner,
    x: Tensor,
    y: Tensor,
    threat: ThreatModel,
    *,
    start: Tensor,
    most: int,
    seed: int = 0,
    index: Tensor | None = None,
    batch_size: BatchSize = "auto",
    cache: Cache = no_cache,
    progress: Progress | None = None,
) -> AttackResult:
    """Square's random search from points that another attack has reached, with small patches.

    Where an attack with gradients ends, a patch that sets a few pixels to another side of the ball
    can still raise the margin: gradients are blind for pixels behind which no unit is active. From
    there it takes far fewer queries than from Square's own start.

    Args:
        model: maps images in ``[0, 1]`` to logits ``(n, k)``; it runs in evaluation mode
            with frozen parameters and is left as it was. Or a :class:`robaudit.engine.Runner`.
        x, y: images ``(n, c, h, w)`` in ``[0, 1]`` and labels ``(n,)`` from 0.
        threat: norm and radius of the perturbations.
        start: ``(n, c, h, w)`` the points, inside the ball and the box.
        most: patches that change an example, each of them one pass at most. In linf more are drawn,
            because some change nothing.
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
    adversarial attack via random search", ECCV 2020; the starting points are ours.

    >>> import torch
    >>> net = nn.Sequential(nn.Flatten(), nn.Linear(36, 2))
    >>> x, y = torch.rand(3, 1, 6, 6), torch.zeros(3).long()
    >>> found = patches(net, x, y, ThreatModel("linf", 0.1), start=x, most=20)
    >>> found.backwards
    0
    """
    useless = 2.0 ** -x.shape[1] if threat.norm == "linf" else 0.0
    queries = int(most / (1 - useless))
    schedule = [FIRST + (LAST - FIRST) * query // queries for query in range(queries)]
    with Runner.of(model, batch_size) as runner:

        def attack(part: Chunk) -> dict[str, Tensor]:
            begin = rows_of(start, part.rows, runner.device).to(part.x)
            found, robust = searched(
                runner, part, threat, queries, seed, start=begin, schedule=schedule, most=most
            )
            return {"x": found, "robust": robust}

        size = rows_at_once(runner, x)
        return run_in_parts(runner, x, y, index, size, attack, cache=cache, progress=progress)
