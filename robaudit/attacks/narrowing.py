"""Targeted Auto-PGD in many runs; those that get furthest go on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from robaudit.attacks.apgd_loop import Verdicts
from robaudit.attacks.apgd_radii import Climbed, Restart, climb
from robaudit.attacks.blocks import rows_at_once
from robaudit.attacks.driver import Chunk, run_in_parts
from robaudit.attacks.objectives import TARGETED
from robaudit.attacks.result import AttackResult
from robaudit.attacks.targets import by_malt
from robaudit.engine import Runner
from robaudit.engine.leaky import leaky
from robaudit.engine.projections import per_image
from robaudit.engine.runner import BatchSize
from robaudit.types import Cache, Norm, Progress, ThreatModel, no_cache

# Classes whose gradients MALT compares.
CANDIDATES = 9


@dataclass(frozen=True)
class Round:
    """How many runs a round has, and the steps and restarts of each.

    A run is a target class and a kind of gradient. Those of the first round are in pairs.
    """

    runs: int
    steps: int
    restarts: int = 1

    def passes(self, norm: Norm) -> int:
        """Of one run, all its restarts together."""
        return self.restarts * (2 * self.steps + (3 if norm == "l1" else 1))


def narrowing(
    model: nn.Module | Runner,
    x: Tensor,
    y: Tensor,
    threat: ThreatModel,
    *,
    rounds: Sequence[Round],
    slope: float,
    seed: int = 0,
    index: Tensor | None = None,
    batch_size: BatchSize = "auto",
    cache: Cache = no_cache,
    progress: Progress | None = None,
) -> AttackResult:
    """Auto-PGD on the targeted DLR loss, in rounds of fewer and fewer runs.

    The first round takes the classes that MALT ranks nearest, each of them once with the network's
    gradients and once with those of :func:`robaudit.engine.leaky.leaky`, which see what ReLUs that
    are off hide. Every later round goes on with the runs of the round before that reached the
    highest loss, from new starting points. Each example has runs of its own, so that its result
    depends on no other example. With fewer than four classes the loss is the margin, because the
    targeted DLR loss needs four.

    Args:
        model: maps images in ``[0, 1]`` to logits ``(n, k)``; it runs in evaluation mode
            with frozen parameters and is left as it was. Or a :class:`robaudit.engine.Runner`.
        x, y: images ``(n, c, h, w)`` in ``[0, 1]`` and labels ``(n,)`` from 0.
        threat: norm and radius of the perturbations.
        rounds: one at least; the first has an even number of runs.
        slope: of ReLUs that are off, in the leaky gradients.
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
    >>> rounds = [Round(4, 5), Round(1, 9)]
    >>> found = narrowing(net, x, y, ThreatModel("l2", 0.1), rounds=rounds, slope=0.1)
    >>> bool((found.robust <= found.correct).all())
    True
    """
    with Runner.of(model, batch_size) as runner:
        soft = leaky(runner, slope)

        def attack(part: Chunk) -> dict[str, Tensor]:
            return _narrowed((runner, soft), part, threat, rounds, seed)

        size = max(1, rows_at_once(runner, x) // max(each.runs for each in rounds))
        return run_in_parts(
            runner, x, y, index, size, attack, searcher=soft, cache=cache, progress=progress
        )


def passes(rounds: Sequence[Round], classes: int, norm: Norm) -> int:
    """Passes on an example that is not broken, the choice of targets among them."""
    spent, left = 2 * min(CANDIDATES, classes - 1), 2 * (classes - 1)
    for each in rounds:
        left = min(each.runs, left)
        spent += left * each.passes(norm)
    return spent


def _narrowed(
    runners: tuple[Runner, Runner],
    part: Chunk,
    threat: ThreatModel,
    rounds: Sequence[Round],
    seed: int,
) -> dict[str, Tensor]:
    objective = TARGETED["dlr" if part.logits.shape[1] >= 4 else "margin"]
    nearest = by_malt(
        runners[0],
        part.x,
        part.y,
        part.logits,
        rounds[0].runs // 2,
        norm=threat.norm,
        candidates=CANDIDATES,
    )
    # Of each run its class, and which runner has its gradient.
    targets = torch.cat([nearest, nearest], dim=1)
    kinds = torch.cat([torch.zeros_like(nearest), torch.ones_like(nearest)], dim=1)
    found = _Found(part)
    work = sum(each.runs * each.steps * each.restarts for each in rounds)
    spent = 0.0
    for number, each in enumerate(rounds):
        targets, kinds = targets[:, : each.runs], kinds[:, : each.runs]
        streams = tuple(f"narrowing {number} {rank}" for rank in range(targets.shape[1]))
        furthest = torch.full(targets.shape, -torch.inf, device=part.x.device)
        for restart in range(each.restarts):
            settings = Restart(threat, objective, each.steps, seed, restart, streams)
            for kind, runner in enumerate(runners):
                left, chosen = torch.nonzero(found.verdicts.robust)[:, 0], kinds == kind
                share = each.runs * each.steps / len(runners)
                if bool(chosen[left].any()):
                    tick = _share(part, spent, share, work)
                    climbed = climb(
                        runner, part, found.verdicts, left, targets, settings, tick, chosen
                    )
                    furthest = torch.maximum(furthest, found.take(climbed, targets.shape))
                spent += share
        order = furthest.argsort(dim=1, descending=True, stable=True)
        targets, kinds = targets.gather(1, order), kinds.gather(1, order)
    return found.points()


class _Found:
    """What the runs on a part have reached.

    Attributes:
        verdicts: on each example, with the points that broke it.
    """

    def __init__(self, part: Chunk) -> None:
        self.verdicts = Verdicts(part.x, part.correct)
        self._highest = torch.full((len(part.x),), -torch.inf, device=part.x.device)
        self._reached = part.x.clone()

    def take(self, climbed: Climbed, runs: torch.Size) -> Tensor:
        """Keep the points of new highest losses; the losses by example and run, -inf if not run."""
        at = climbed.example, climbed.rank
        losses = torch.full(runs, -torch.inf, device=climbed.best.device)
        losses[at] = climbed.best
        row = torch.zeros(runs, dtype=torch.long, device=climbed.best.device)
        row[at] = torch.arange(len(climbed.best), device=row.device)
        best, run = losses.max(dim=1)
        rose = best > self._highest
        points = climbed.best_x[row.gather(1, run[:, None])[:, 0]]
        self._highest = torch.maximum(self._highest, best)
        self._reached = torch.where(per_image(points, rose), points, self._reached)
        return losses

    def points(self) -> dict[str, Tensor]:
        """Of each example the point that broke it, or else the one of the highest loss."""
        robust = self.verdicts.robust
        ends = torch.where(per_image(self._reached, robust), self._reached, self.verdicts.found)
        return {"x": ends, "robust": robust}


def _share(part: Chunk, spent: float, share: float, work: float) -> Callable[[float], None]:
    return lambda done: part.tick((spent + done * share) / work)
