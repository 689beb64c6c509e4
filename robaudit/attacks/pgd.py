"""Projected gradient descent, on cross-entropy (PGD) or on the margin (CW)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from robaudit.attacks.best_iterates import BestIterates
from robaudit.attacks.objectives import LossName
from robaudit.attacks.pgd_early_exit import break_all
from robaudit.attacks.result import AttackResult
from robaudit.engine import TILE, Runner, accelerate, voted
from robaudit.engine.arguments import checked
from robaudit.engine.images import StoredImages, rows_of
from robaudit.engine.projections import ascend, project, random_start
from robaudit.engine.runner import BatchSize
from robaudit.engine.spilled import copied, room
from robaudit.errors import UsageError
from robaudit.types import Cache, Progress, ThreatModel, no_cache

# Examples whose state is on the device at once, and the bytes of one tensor of them; they bound
# memory, not results.
_CHUNK, _BYTES_CPU, _BYTES_GPU = 16 * TILE, 1 << 26, 1 << 29
_KEPT = ("loss", "robust", "correct", "stuck", "reached")


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
        index = torch.arange(len(x)) if index is None else index
        total = len(x) * restarts * (steps + 1)
        pieces: list[dict[str, Tensor]] = []
        worst = room(x)
        broken_x = copied(worst)
        budget = _BYTES_CPU if runner.device.type == "cpu" else _BYTES_GPU
        size = max(TILE, min(_CHUNK, budget // (4 * x[0].numel()) // TILE * TILE))
        for begin in range(0, len(x), size):
            part = slice(begin, begin + size)

            def run(part: slice = part) -> dict[str, Tensor]:
                before = _passes(runner, searcher)
                met = BestIterates(runner, rows_of(x, part, runner.device), y[part], loss)
                done = part.start * restarts * (steps + 1)

                def tick(steps_done: int) -> None:
                    nonlocal done
                    done = min(done + steps_done, total)
                    if progress is not None:
                        progress(done, total)

                first = None if start is None else rows_of(start, part, runner.device)
                if searcher is not None:
                    break_all(
                        runner, searcher, met, index[part], threat, step, steps, restarts, seed,
                        first, lambda ended: tick(ended * (steps + 1)),
                    )  # fmt: skip
                else:
                    for restart in range(restarts):
                        if restart or first is None:
                            points = random_start(met.x, index[part], threat, seed, restart)
                        else:
                            points = project(first.to(met.x), met.x, threat)
                        _climb(runner, met, points, threat, step, steps, last_iterate, tick)
                return {**met.piece(), "passes": _passes(runner, searcher) - before}

            piece = cache(f"{begin:07d}", run)
            found, broken = piece["x"].cpu(), piece["broken_x"].cpu()
            worst[part] = found
            # Where they are many the two share a file, but for the rows where they differ.
            rows = torch.nonzero((found != broken).flatten(1).any(1))[:, 0]
            own = rows if isinstance(broken_x, StoredImages) else torch.arange(len(found))
            broken_x[begin + own] = broken[own]
            pieces.append({name: piece[name] for name in (*_KEPT, "passes")})
        if progress is not None:
            progress(total, total)
        whole = {name: torch.cat([piece[name] for piece in pieces]).cpu() for name in _KEPT}
        passes = torch.stack([piece["passes"] for piece in pieces]).sum(0).tolist()
        return AttackResult(
            x=worst,
            loss=whole["loss"],
            robust=whole["robust"],
            correct=whole["correct"],
            forwards=passes[0],
            backwards=passes[1],
            broken_x=broken_x,
            stuck=whole["stuck"],
            reached=whole["reached"],
        )


def _passes(*runners: Runner | None) -> Tensor:
    used = [(runner.forwards, runner.backwards) for runner in runners if runner is not None]
    return torch.tensor(used).sum(0)


def _climb(
    runner: Runner,
    met: BestIterates,
    start: Tensor,
    threat: ThreatModel,
    step: float,
    steps: int,
    last_iterate: bool,
    tick: Callable[[int], None],
) -> None:
    """One restart of every example to its end."""
    rows = torch.arange(len(met.x), device=met.x.device)
    adv = start
    met.begin(rows)
    for _ in range(steps):
        values, gradient, logits = runner.gradient(met.objective, adv, met.y)
        met.rise(rows, values)
        if not last_iterate:
            met.meet(rows, adv, values, logits, first_break=False)
        adv = project(ascend(adv, gradient, step, threat), met.x, threat)
        tick(len(rows))
    logits = runner.logits(adv)
    met.meet(rows, adv, met.objective(logits, met.y), logits, first_break=False)
    tick(len(rows))
