"""The loss whose flatness is measured: robust, or clean."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from robaudit.attacks.balls import Ball, ascend, random_start
from robaudit.attacks.objectives import cross_entropy
from robaudit.attacks.pgd import pgd_with
from robaudit.attacks.result import Attacked
from robaudit.engine import TILE, Runner
from robaudit.engine.runner import BatchSize
from robaudit.errors import NotMeasuredError
from robaudit.flatness.weights import Forward
from robaudit.types import Progress, ThreatModel

# Of images this small several tiles still fit the caches, and the passes over them take a tenth
# less time; the bits stay.
_SMALL, _TILES = 1024, 4


@dataclass(frozen=True)
class Loss:
    """Each example's highest cross-entropy under PGD, from the same random starts every time.

    Without a threat model the cross-entropy of the clean image.
    """

    x: Tensor
    y: Tensor
    threat: ThreatModel | None
    steps: int
    step: float
    seed: int
    index: Tensor | None
    device: torch.device
    batch_size: BatchSize

    def runner(self, forward: Forward) -> Runner:
        """Runs a network on these examples' device."""
        found = Runner(forward, self.device, self.batch_size)
        if self.device.type == "cpu":
            found.batch = self.tile
        return found

    @property
    def tile(self) -> int:
        """How many images pass through a network together, on a CPU."""
        small = self.device.type == "cpu" and self.x[0].numel() <= _SMALL
        return _TILES * TILE if small else TILE

    def reference(
        self, model: nn.Module, restarts: int = 1, progress: Progress | None = None
    ) -> Attacked:
        """What the unperturbed network loses on the examples, and where.

        Raises:
            NotMeasuredError: losses that are not finite.
        """
        runner = self.runner(model)
        if self.threat is not None:
            return pgd_with(
                runner, self.x, self.y, self.threat, steps=self.steps, step_size=self.step,
                restarts=restarts, seed=self.seed, index=self.index, progress=progress,
            )  # fmt: skip
        found, right = self.clean(runner)
        if progress is not None:
            progress(len(self.x), len(self.x))
        return Attacked(self.x, found, right, right, len(self.x), 0)

    def of(self, forward: Forward, restarts: int = 1, progress: Progress | None = None) -> Tensor:
        """What a network loses on each of the examples, ``(n,)`` on the CPU.

        The loss of :func:`robaudit.attacks.pgd` bit for bit; here nothing else is kept.

        Raises:
            NotMeasuredError: losses that are not finite.
        """
        runner = self.runner(forward)
        total = len(self.x) * restarts * (self.steps + 1)
        if self.threat is None:
            found, _ = self.clean(runner)
        else:
            index = torch.arange(len(self.x)) if self.index is None else self.index
            rows, done = [], 0
            for begin in range(0, len(self.x), runner.batch):
                part = slice(begin, begin + runner.batch)

                def tick(passed: int) -> None:
                    nonlocal done
                    done += passed
                    if progress is not None:
                        progress(done, total)

                x, y = self.x[part].to(self.device), self.y[part].to(self.device)
                rows.append(self._highest(runner, x, y, index[part], self.threat, restarts, tick))
            found = torch.cat(rows)
        if not bool(found.isfinite().all()):
            raise NotMeasuredError("the perturbed network's losses are not finite")
        if progress is not None:
            progress(total, total)
        return found

    def clean(self, runner: Runner) -> tuple[Tensor, Tensor]:
        """Losses of the images as they are, and which are classified correctly.

        Raises:
            NotMeasuredError: losses that are not finite.
        """
        logits = runner.logits(self.x).cpu()
        found = cross_entropy(logits, self.y.cpu())
        if not bool(found.isfinite().all()):
            raise NotMeasuredError("the network's logits are not finite on some images")
        return found, logits.argmax(1) == self.y.cpu()

    def _highest(
        self, runner: Runner, x: Tensor, y: Tensor, index: Tensor, threat: ThreatModel,
        restarts: int, tick: Callable[[int], None],
    ) -> Tensor:  # fmt: skip
        """Of the images that pass through the network together."""
        ball = Ball(x, threat.norm, threat.eps)
        highest = cross_entropy(runner.logits(x), y)
        for restart in range(restarts):
            adv = random_start(x, index, threat, self.seed, restart)
            for _ in range(self.steps):
                values, gradient, _ = runner.gradient(cross_entropy, adv, y)
                highest = torch.maximum(highest, values)
                adv = ball.project_(ascend(adv, gradient, self.step, threat))
                tick(len(x))
            highest = torch.maximum(highest, cross_entropy(runner.logits(adv), y))
            tick(len(x))
        return highest.cpu()
