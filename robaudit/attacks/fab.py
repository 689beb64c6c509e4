"""FAB: the nearest misclassified point, by steps to linearised decision boundaries."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from robaudit.attacks.blocks import (
    Block,
    any_broken,
    any_row,
    gathered,
    packed,
    parts,
    put,
    raised,
    repacked,
    rows_at_once,
)
from robaudit.attacks.driver import Chunk, run_in_parts
from robaudit.attacks.hyperplanes import to_hyperplane
from robaudit.attacks.objectives import targeted_margin
from robaudit.attacks.result import AttackResult
from robaudit.attacks.targets import by_confidence, per_target
from robaudit.engine import Runner, normal_rows, uniform_rows
from robaudit.engine.arguments import checked
from robaudit.engine.projections import length, per_image
from robaudit.engine.runner import BatchSize
from robaudit.types import DUALS, Cache, Progress, ThreatModel, no_cache

# Names and values of the paper.
ALPHA_MAX = 0.1
ETA = 1.05
BETA = 0.9

# Steps after which broken examples leave.
_SEGMENT = 5


@checked
def fab(
    model: nn.Module | Runner,
    x: Tensor,
    y: Tensor,
    threat: ThreatModel,
    *,
    targets: int = 9,
    steps: int = 100,
    restarts: int = 1,
    mode: Literal["distance", "accuracy"] = "distance",
    seed: int = 0,
    index: Tensor | None = None,
    batch_size: BatchSize = "auto",
    cache: Cache = no_cache,
    progress: Progress | None = None,
) -> AttackResult:
    """Fast adaptive boundary attack: minimise the distance of a misclassified point to each image.

    Each step goes to the linearised decision boundary, a little beyond it (``eta = 1.05``) and
    biased towards the image; a misclassified point is recorded and moved back towards the image
    (``beta = 0.9``).

    Args:
        model: maps images in ``[0, 1]`` to logits ``(n, k)``; it runs in evaluation mode
            with frozen parameters and is left as it was. Or a :class:`robaudit.engine.Runner`.
        x, y: images ``(n, c, h, w)`` in ``[0, 1]`` and labels ``(n,)`` from 0.
        threat: norm and radius of the perturbations.
            The radius decides ``robust``, and the distance at which restarts begin.
        targets: how many of the largest other logits to target, one run for each; 0 to step towards
            the nearest boundary of all classes, which takes a gradient for each of them.
        steps: steps per restart and target.
        restarts: the first begins at the image, the others at distance ``eps / 2`` from it.
        mode: ``distance`` runs every example to the end; ``accuracy`` stops an example once a
            misclassified point inside the ball is found.
        seed: of all random draws.
        index: ``(n,)`` the examples' positions in their data set; each example's draws depend on
            its position and the seed only. ``0..n-1`` unless given.
        batch_size: images per pass on a GPU; no result depends on it. A Runner has its own.
        cache: keeps each finished part of the examples, so that an interrupted run can continue.
        progress: called with the work done and the work in all.

    Returns:
        All common fields, ``nearest`` and ``distance``.

    Raises:
        NotMeasuredError: logits or gradients that are not finite.

    Source: Croce & Hein, "Minimally distorted adversarial examples with a fast adaptive boundary
    attack", ICML 2020; targeted as in AutoAttack.

    >>> net = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    >>> found = fab(net, torch.rand(3, 1, 2, 2), torch.zeros(3).long(), ThreatModel("l2", 0.1))
    >>> found.nearest.shape
    torch.Size([3, 1, 2, 2])
    """
    with Runner.of(model, batch_size) as runner:

        def attack(part: Chunk) -> dict[str, Tensor]:
            chunk = _FabChunk(runner, part, threat, targets, mode == "accuracy")
            for restart in range(restarts):
                chunk.restart(steps, seed, restart, part.tick_of(restart, restarts))
            robust = chunk.distance > threat.eps
            return {
                "x": torch.where(per_image(part.x, robust), part.x, chunk.nearest),
                "robust": robust,
                "nearest": chunk.nearest,
                "distance": chunk.distance,
            }

        size = max(1, rows_at_once(runner, x) // max(1, targets))
        return run_in_parts(runner, x, y, index, size, attack, cache=cache, progress=progress)


class _FabRows(Block):
    example: Tensor
    labels: Tensor
    x: Tensor
    adv: Tensor
    nearest: Tensor
    distance: Tensor


class _FabChunk:
    """Examples attacked together, and the nearest misclassified point of each."""

    def __init__(
        self,
        runner: Runner,
        part: Chunk,
        threat: ThreatModel,
        targets: int,
        early_exit: bool,
    ) -> None:
        self.runner, self.threat, self.early_exit = runner, threat, early_exit
        self.x, self.y, self.index = part.x, part.y, part.index
        self.correct, self.classes = part.correct, part.logits.shape[1]
        self.targets = by_confidence(part.logits, self.y, targets) if targets else None
        self.nearest = self.x.clone()
        self.distance = torch.where(self.correct, torch.inf, 0.0)

    def restart(self, steps: int, seed: int, restart: int, tick: Callable[[float], None]) -> None:
        """One restart, for all targets at once."""
        wanted = self.distance > self.threat.eps if self.early_exit else self.correct
        attacked = torch.nonzero(wanted)[:, 0]
        if len(attacked) == 0:
            return
        example, _, labels = per_target(attacked, self.y, self.targets)
        ranks = 1 if self.targets is None else self.targets.shape[1]
        starts = [self._start(attacked, seed, restart, rank) for rank in range(ranks)]
        state = {
            "example": example,
            "labels": labels,
            "x": self.x[example],
            "adv": torch.stack(starts, dim=1).flatten(0, 1),
            "nearest": self.x[example],  # a second copy, as it is changed in place
            "distance": torch.full((len(example),), torch.inf, device=self.x.device),
        }
        blocks = packed(_FabRows, self.runner.per_round, state)
        for segment in parts(steps, _SEGMENT):
            for block in blocks:
                for _ in range(segment.stop - segment.start):
                    self._step(block)
            blocks = self._drop_broken(blocks, at_end=segment.stop == steps)
            tick(segment.stop / steps)
            if not blocks:
                return

    def _start(self, example: Tensor, seed: int, restart: int, rank: int) -> Tensor:
        x = self.x[example]
        if restart == 0:
            return x.clone()
        norm, shape = self.threat.norm, x.shape[1:]
        draw = uniform_rows if norm == "linf" else normal_rows
        away = draw(shape, self.index[example], seed, f"fab {rank}", restart, device=x.device)
        away = 2 * away - 1 if norm == "linf" else away
        away = away * per_image(away, self.threat.eps / 2 / length(away, norm))
        return (x + away).clamp_(0, 1)

    def _step(self, block: _FabRows) -> None:
        norm = self.threat.norm
        gap, gradient = self._boundary(block)
        normal, adv, x = gradient.flatten(1), block.adv.flatten(1), block.x.flatten(1)
        gap_at_x = gap - (normal * (adv - x)).sum(1)
        # Both ways at once would leave the cache.
        onward = to_hyperplane(adv, normal, gap, norm)
        from_x = to_hyperplane(x, normal, gap_at_x, norm)
        far = length(onward, norm).clamp_min_(1e-8)
        far_from_x = length(from_x, norm).clamp_min_(1e-8)
        bias = (far / (far + far_from_x)).clamp_max_(ALPHA_MAX)[:, None]
        onward = onward.mul_(ETA).add_(adv).mul_(1 - bias)
        from_x = from_x.mul_(ETA).add_(x).mul_(bias)
        block.adv = onward.add_(from_x).clamp_(0, 1).view_as(block.x)
        logits = self.runner.logits(block.adv, block.used)
        wrong = logits.argmax(1) != self._own(block)
        if not any_row(wrong):
            return
        moved = block.adv - block.x
        distance = length(moved, norm)
        closer = wrong & (distance < block.distance)
        if self.early_exit:
            closer &= block.distance > self.threat.eps
        block.distance = torch.where(closer, distance, block.distance)
        block.nearest = put(block.nearest, closer, block.adv)
        block.adv = put(block.adv, wrong, moved.mul_(BETA).add_(block.x))

    def _own(self, block: _FabRows) -> Tensor:
        return block.labels if self.targets is None else block.labels[:, 0]

    def _boundary(self, block: _FabRows) -> tuple[Tensor, Tensor]:
        """Lead and gradient of the target class, or of the class whose boundary is nearest."""
        if self.targets is not None:
            gap, gradient, _ = self.runner.gradient(
                targeted_margin, block.adv, block.labels, block.used
            )
            return gap, gradient
        nearest: tuple[Tensor, Tensor, Tensor] | None = None
        for other in range(1, self.classes):
            target = (block.labels + other) % self.classes
            labels = torch.stack([block.labels, target], dim=1)
            gap, gradient, _ = self.runner.gradient(targeted_margin, block.adv, labels, block.used)
            distance = gap.abs() / (length(gradient, DUALS[self.threat.norm]) + 1e-12)
            if nearest is None:
                nearest = distance, gap, gradient
                continue
            nearer = distance < nearest[0]
            nearest = (
                torch.where(nearer, distance, nearest[0]),
                torch.where(nearer, gap, nearest[1]),
                torch.where(per_image(gradient, nearer), gradient, nearest[2]),
            )
        assert nearest is not None
        return nearest[1], nearest[2]

    def _drop_broken(self, blocks: list[_FabRows], *, at_end: bool) -> list[_FabRows]:
        """Record what was found; drop the rows of examples that have a point inside the ball."""
        distance, example = gathered(blocks, "distance"), gathered(blocks, "example")
        finite = [block.adv.isfinite().all() for block in blocks]
        broke = any_broken(distance <= self.threat.eps, finite)
        if not at_end and not (self.early_exit and broke):
            return blocks
        best, closer, row = raised(-self.distance, example, -distance)
        self.nearest[closer], self.distance = gathered(blocks, "nearest")[row], -best
        if at_end:
            return []
        return repacked(blocks, self.distance[example] > self.threat.eps, self.runner.per_round)
