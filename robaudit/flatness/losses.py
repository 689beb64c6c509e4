"""The loss whose flatness is measured: robust, or clean."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from robaudit.attacks.objectives import cross_entropy, rising_cross_entropy
from robaudit.attacks.pgd import pgd
from robaudit.attacks.result import AttackResult
from robaudit.engine import TILE, Runner
from robaudit.engine.ascent import ascend_from
from robaudit.engine.images import rows_of
from robaudit.engine.logits import Forward
from robaudit.engine.projections import Ball, random_start
from robaudit.engine.runner import BatchSize
from robaudit.errors import NotMeasuredError
from robaudit.flatness.stacked import StackedRunner
from robaudit.types import Progress, ThreatModel

# Several tiles of images this small fit into the caches, and passes over them take a tenth less
# time, with the same results bit for bit.
_SMALL, _TILES = 1024, 4


@dataclass(frozen=True)
class RobustLoss:
    """Each example's highest cross-entropy under PGD, always from the same random starts.

    Attributes:
        x, y: images ``(n, c, h, w)`` and labels ``(n,)``.
        threat: ``None`` for the cross-entropy of the clean images.
        steps, step, seed: of PGD.
        index: ``(n,)`` the examples' positions in their data set, which seed their starts.
        backoffs: sizes of passes, in images of one network, in which memory ran out.
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
    backoffs: list[int] = field(default_factory=list)

    def runner(self, forward: Forward, many: int = 1) -> Runner:
        """A runner of a network, or of ``many`` stacked ones, on the examples' device."""
        how = self.device, self.batch_size
        found = Runner(forward, *how) if many == 1 else StackedRunner(forward, many, *how)
        if self.device.type == "cpu":
            found.batch = self.tile
        found.backoffs = self.backoffs
        return found

    @property
    def notes(self) -> list[str]:
        """A note if memory ran out and passes were made smaller."""
        if not self.backoffs:
            return []
        return [
            f"memory ran out in passes of {max(self.backoffs)} images; smaller ones went on, which "
            "can change the last digits, not the method: give a smaller --batch-size to begin with"
        ]

    @property
    def tile(self) -> int:
        """Images per pass on a CPU."""
        small = self.device.type == "cpu" and self.x[0].numel() <= _SMALL
        return _TILES * TILE if small else TILE

    def reference(
        self, model: nn.Module, restarts: int = 1, progress: Progress | None = None
    ) -> AttackResult:
        """The losses of the unperturbed network and its adversarial examples.

        Raises:
            NotMeasuredError: losses that are not finite.
        """
        runner = self.runner(model)
        if self.threat is not None:
            return pgd(
                runner,
                self.x,
                self.y,
                self.threat,
                steps=self.steps,
                step_size=self.step,
                restarts=restarts,
                seed=self.seed,
                index=self.index,
                progress=progress,
            )
        logits = runner.logits(self.x).cpu()
        found = cross_entropy(logits, self.y.cpu())
        if not bool(found.isfinite().all()):
            raise NotMeasuredError("the network's logits are not finite on some images")
        right = logits.argmax(1) == self.y.cpu()
        if progress is not None:
            progress(len(self.x), len(self.x))
        return AttackResult(self.x, found, right, right, len(self.x), 0)

    def of(self, forward: Forward, restarts: int = 1, progress: Progress | None = None) -> Tensor:
        """The losses of a network, ``(n,)`` on the CPU.

        Bit for bit the ``loss`` of :func:`robaudit.attacks.pgd`; nothing else is recorded.

        Raises:
            NotMeasuredError: losses that are not finite.
        """
        (found,) = self.of_all(forward, 1, restarts, progress)
        return finite(found)

    def of_all(
        self, forward: Forward, many: int, restarts: int = 1, progress: Progress | None = None
    ) -> Tensor:
        """The losses of ``many`` networks, ``(many, n)`` on the CPU, finite or not.

        Several networks run in one pass, each with its own adversarial examples from the same
        starts; up to rounding, the losses are those of each network alone.

        Args:
            forward: ``(b, c, h, w)`` to ``(b, k)``; for several networks ``(b, K, c, h, w)`` to
                ``(b, K, k)``.
        """
        runner = self.runner(forward, many)
        index = torch.arange(len(self.x)) if self.index is None else self.index
        restarts = restarts if self.threat is not None else 0
        total, done = len(self.x) * (restarts * (self.steps + 1) or 1), 0

        def tick(passed: int) -> None:
            nonlocal done
            done += passed
            if progress is not None:
                progress(done, total)

        rows = []
        for begin in range(0, len(self.x), runner.per_round):
            part = slice(begin, begin + runner.per_round)
            x, y = rows_of(self.x, part, self.device), self.y[part].to(self.device)
            found = self._highest(runner, x, y, index[part], many, restarts, tick)
            rows.append(found.reshape(-1, many).T)
        if progress is not None:
            progress(total, total)
        return torch.cat(rows, 1)

    def _highest(
        self,
        runner: Runner,
        x: Tensor,
        y: Tensor,
        index: Tensor,
        many: int,
        restarts: int,
        tick: Callable[[int], None],
    ) -> Tensor:
        """The losses of one pass: row ``i many + j`` is image i in network j."""
        images, labels = x.repeat_interleave(many, 0), y.repeat_interleave(many)
        highest = cross_entropy(runner.logits(images), labels)
        if self.threat is None:
            return highest.cpu()
        ball = Ball(images, self.threat)

        def record(_: Tensor, __: Tensor, logits: Tensor, ___: Tensor | None) -> None:
            nonlocal highest
            highest = torch.maximum(highest, cross_entropy(logits, labels))
            tick(len(x))

        for restart in range(restarts):
            start = random_start(x, index, self.threat, self.seed, restart)
            ascend_from(
                start.repeat_interleave(many, 0),
                labels,
                runner,
                rising_cross_entropy,
                ball,
                self.step,
                self.steps,
                record,
            )
        return highest.cpu()


def finite(losses: Tensor) -> Tensor:
    """The losses, if all are finite.

    Raises:
        NotMeasuredError: some are not.
    """
    if not bool(losses.isfinite().all()):
        raise NotMeasuredError("the perturbed network's losses are not finite")
    return losses
