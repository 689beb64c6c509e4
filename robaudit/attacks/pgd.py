"""Projected gradient descent, on cross-entropy (PGD) or on the margin (CW)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from robaudit.attacks.best_iterates import BestIterates
from robaudit.attacks.driver import Part, run_in_parts
from robaudit.attacks.objectives import LossName
from robaudit.attacks.pgd_early_exit import pgd_early_exit
from robaudit.attacks.result import AttackResult
from robaudit.engine import TILE, Runner, accelerate, voted
from robaudit.engine.arguments import checked
from robaudit.engine.ascent import ascent
from robaudit.engine.images import rows_of
from robaudit.engine.projections import Ball, project, random_start
from robaudit.engine.runner import BatchSize
from robaudit.errors import UsageError
from robaudit.types import Cache, Progress, ThreatModel, no_cache

# Examples whose state is on the device at once, and the bytes of one tensor of them; they bound
# memory, not results.
_CHUNK, _BYTES_CPU, _BYTES_GPU = 16 * TILE, 1 << 26, 1 << 29


@checked
def pgd(
    model: nn.Module | Runner,
    x: Tensor,
    y: Tensor,
    threat: ThreatModel,
    *,
    steps: int = 20,
    step_size: float | None = None,
    restarts: int = 1,
    loss: LossName = "ce",
    mode: Literal["loss", "accuracy"] = "loss",
    last_iterate: bool = False,
    samples: int | None = None,
    seed: int = 0,
    index: Tensor | None = None,
    start: Tensor | None = None,
    batch_size: BatchSize = "auto",
    searcher: Runner | None = None,
    cache: Cache = no_cache,
    progress: Progress | None = None,
) -> AttackResult:
    """Maximise a loss over each image's ball; keep the best iterate over steps and restarts.

    ``x_{t+1} = P(x_t + a g)`` with ``g = sign(grad)`` (linf) or ``grad / ||grad||_2`` (l2), ``P``
    the projection on the ball and on ``[0, 1]``, from a uniform random point of the ball. The clean
    image counts as an iterate, so the loss is never below the clean loss.

    Args:
        model: images in ``[0, 1]`` to logits; run in evaluation mode and left as it was.
        x, y: images ``(n, c, h, w)`` and labels ``(n,)``.
        steps: gradient steps per restart.
        step_size: ``a``; ``eps / 4`` unless given.
        loss: ``ce``, or ``margin`` (linf: the CW-20 of the RAT paper).
        mode: ``loss`` runs every example to the end, for robust losses; ``accuracy`` lets an
            example go as soon as it is misclassified, and searches in the fastest way to run the
            network (:func:`robaudit.engine.accelerate`); the network itself confirms each break.
        last_iterate: count the last iterate of each restart alone, as papers' tables mostly do, and
            not the worst on the way; only in the mode ``loss``.
        samples: of a network that draws at random, the draws that vote on a verdict, and those that
            a gradient is averaged over (:mod:`robaudit.engine.voting`); ten where it draws, else 1.
        index: ``(n,)`` the examples' places in their data set, which seed their starts.
        start: ``(n, c, h, w)`` where the first restart begins, in place of a random point; those
            outside the ball or the box are projected.
        batch_size: images per pass on a GPU; results do not depend on it.

    Raises:
        UsageError: ``last_iterate`` in the mode ``accuracy``.
        NotMeasuredError: logits or losses that are not finite.

    Source: Madry et al., "Towards deep learning models resistant to adversarial attacks", 2018.

    >>> from torch import nn
    >>> net = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    >>> found = pgd(net, torch.rand(3, 1, 2, 2), torch.zeros(3).long(), ThreatModel("linf", 0.1))
    >>> found.x.shape, bool((found.robust <= found.correct).all())
    (torch.Size([3, 1, 2, 2]), True)
    """
    if last_iterate and mode == "accuracy":
        raise UsageError(
            "last_iterate needs mode='loss'",
            "In mode 'accuracy' an example is done as soon as any iterate is misclassified.",
        )
    network = model if isinstance(model, Runner) else voted(model, x, samples, seed)
    with Runner.of(network, batch_size) as runner:
        if mode == "loss":
            searcher = None
        elif searcher is None:
            accelerated = (
                isinstance(network, nn.Module) and accelerate(network, x.shape[1:]).forward
            )
            searcher = Runner(accelerated or runner.forward, runner.device, runner.batch)
        step = threat.eps / 4 if step_size is None else step_size

        def attack(part: Part) -> dict[str, Tensor]:
            best = BestIterates(part, loss)
            given = None if start is None else rows_of(start, part.rows, runner.device)
            work, done = len(part.y) * restarts * (steps + 1), 0

            def tick(passes: int) -> None:
                nonlocal done
                done += passes
                part.tick(done / work)

            def begin(rows: Tensor, restart: int) -> Tensor:
                clean = part.x[rows]
                if given is not None and restart == 0:
                    return project(given.to(clean)[rows], clean, threat)
                return random_start(clean, part.index[rows.cpu()], threat, seed, restart)

            if searcher is not None:
                pgd_early_exit(
                    runner, searcher, best, begin, threat, step, steps, restarts,
                    lambda ended: tick(ended * (steps + 1)),
                )  # fmt: skip
                return best.fields()
            rows, ball = torch.arange(len(part.x), device=runner.device), Ball(part.x, threat)
            for restart in range(restarts):
                first = begin(rows, restart)
                best.start_restart(rows)
                iterates = ascent(runner, best.objective, first, part.y, ball, step, steps)
                for at, iterate in enumerate(iterates):
                    if last_iterate and at < steps:
                        best.note_rise(rows, iterate.values)
                    else:
                        best.update(rows, *iterate[:3], early_exit=False)
                    tick(len(rows))
            return best.fields()

        budget = _BYTES_CPU if runner.device.type == "cpu" else _BYTES_GPU
        size = max(TILE, min(_CHUNK, budget // (4 * x[0].numel()) // TILE * TILE))
        return run_in_parts(
            runner, x, y, index, size, attack, searcher=searcher, cache=cache, progress=progress
        )
