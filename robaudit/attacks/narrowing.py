"""Targeted Auto-PGD on many classes; those that it brings nearest are attacked further."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from robaudit.attacks.apgd_loop import Verdicts
from robaudit.attacks.apgd_radii import Restart, climb
from robaudit.attacks.blocks import rows_at_once
from robaudit.attacks.driver import Chunk, run_in_parts
from robaudit.attacks.objectives import TARGETED
from robaudit.attacks.result import AttackResult
from robaudit.attacks.targets import by_malt
from robaudit.engine import Runner
from robaudit.engine.projections import per_image
from robaudit.engine.runner import BatchSize
from robaudit.types import Cache, Norm, Progress, ThreatModel, no_cache

# Classes whose gradients MALT compares.
CANDIDATES = 9


@dataclass(frozen=True)
class Round:
    """How many classes a round targets, nearest first, and the steps and restarts on each."""

    targets: int
    steps: int
    restarts: int = 1


def narrowing(
    model: nn.Module | Runner,
    x: Tensor,
    y: Tensor,
    threat: ThreatModel,
    *,
    rounds: Sequence[Round],
    seed: int = 0,
    index: Tensor | None = None,
    batch_size: BatchSize = "auto",
    cache: Cache = no_cache,
    progress: Progress | None = None,
) -> AttackResult:
    """Auto-PGD on the targeted DLR loss, in rounds on fewer and fewer classes.

    The first round takes the classes that MALT ranks nearest; every other one those of the round
    before that reached the highest loss, from new starting points. Each example has classes of its
    own, so that its result depends on no other example. With fewer than four classes the loss is
    the margin, because the targeted DLR loss needs four.

    Args:
        model: maps images in ``[0, 1]`` to logits ``(n, k)``; it runs in evaluation mode
            with frozen parameters and is left as it was. Or a :class:`robaudit.engine.Runner`.
        x, y: images ``(n, c, h, w)`` in ``[0, 1]`` and labels ``(n,)`` from 0.
        threat: norm and radius of the perturbations.
        rounds: one at least.
        seed: of all random draws.
        index: ``(n,)`` the examples' positions in their data set; each example's draws depend on
            its position and the seed only. ``0..n-1`` unless given.
        batch_size: images per pass on a GPU; no result depends on it. A Runner has its own.
        cache: keeps each finished part of the examples, so that an interrupted run can continue.
        progress: called with the work done and the work in all.

    Returns:
        All common fields; ``loss`` is ``nan``. ``x`` is the first misclassified point of examples
        that were broken, and of the others the point with the highest loss.

    Raises:
        NotMeasuredError: logits or losses that are not finite.

    Source: Croce & Hein, "Reliable evaluation of adversarial robustness with an ensemble of
    diverse parameter-free attacks", ICML 2020 (targeted APGD); Melamed, Yehudai & Shamir, "MALT
    powers up adversarial attacks", NeurIPS 2024 (the first targets). The rounds are ours; they give
    passes to the hopeful runs of an example, as Liu et al., "Practical evaluation of adversarial
    robustness via adaptive auto attack", CVPR 2022, give them to the hopeful examples.

    >>> net = nn.Sequential(nn.Flatten(), nn.Linear(4, 5))
    >>> x, y = torch.rand(3, 1, 2, 2), torch.zeros(3).long()
    >>> found = narrowing(net, x, y, ThreatModel("l2", 0.1), rounds=[Round(4, 5), Round(1, 9)])
    >>> bool((found.robust <= found.correct).all())
    True
    """
    with Runner.of(model, batch_size) as runner:

        def attack(part: Chunk) -> dict[str, Tensor]:
            return _narrowed(runner, part, threat, rounds, seed)

        size = max(1, rows_at_once(runner, x) // max(each.targets for each in rounds))
        return run_in_parts(runner, x, y, index, size, attack, cache=cache, progress=progress)


def passes(rounds: Sequence[Round], classes: int, norm: Norm) -> int:
    """Passes on an example that is not broken, the choice of targets among them."""
    more = 3 if norm == "l1" else 1
    spent = 2 * min(CANDIDATES, classes - 1)
    for each in rounds:
        spent += min(each.targets, classes - 1) * each.restarts * (2 * each.steps + more)
    return spent


def _narrowed(
    runner: Runner, part: Chunk, threat: ThreatModel, rounds: Sequence[Round], seed: int
) -> dict[str, Tensor]:
    classes = part.logits.shape[1]
    objective = TARGETED["dlr" if classes >= 4 else "margin"]
    verdicts = Verdicts(part.x, part.correct)
    targets = by_malt(
        runner,
        part.x,
        part.y,
        part.logits,
        rounds[0].targets,
        norm=threat.norm,
        candidates=CANDIDATES,
    )
    highest = torch.full((len(part.x),), -torch.inf, device=part.x.device)
    reached = part.x.clone()
    work = sum(each.targets * each.steps * each.restarts for each in rounds)
    spent = 0
    for number, each in enumerate(rounds):
        targets = targets[:, : each.targets]
        furthest = torch.full(targets.shape, -torch.inf, device=part.x.device)
        for restart in range(each.restarts):
            left = torch.nonzero(verdicts.robust)[:, 0]
            if len(left) == 0:
                break
            settings = Restart(
                threat,
                objective,
                each.steps,
                seed,
                restart,
                tuple(f"narrowing {number} {rank}" for rank in range(targets.shape[1])),
            )
            share = each.targets * each.steps
            found = climb(
                runner, part, verdicts, left, targets, settings, _share(part, spent, share, work)
            )
            spent += share
            values = found.best.view(len(left), -1)
            furthest[left] = torch.maximum(furthest[left], values)
            best, at = values.max(1)
            points = found.best_x.view(len(left), -1, *part.x.shape[1:])
            own, rose = torch.arange(len(left), device=at.device), best > highest[left]
            points = torch.where(per_image(reached, rose), points[own, at], reached[left])
            highest[left], reached[left] = torch.maximum(highest[left], best), points
        order = furthest.argsort(dim=1, descending=True, stable=True)
        targets = targets.gather(1, order)
    robust = verdicts.robust
    return {"x": torch.where(per_image(reached, robust), reached, verdicts.found), "robust": robust}


def _share(part: Chunk, spent: int, share: int, work: int) -> Callable[[float], None]:
    return lambda done: part.tick((spent + done * share) / work)
