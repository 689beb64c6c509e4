"""The loss whose flatness is measured: robust, or clean."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from robaudit.attacks.objectives import cross_entropy
from robaudit.attacks.pgd import pgd_with
from robaudit.attacks.result import Attacked
from robaudit.engine import TILE, Runner
from robaudit.engine.runner import BatchSize
from robaudit.errors import NotMeasuredError
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

    def runner(self, forward: Callable[[Tensor], Tensor]) -> Runner:
        """Runs a network on these examples' device."""
        found = Runner(forward, self.device, self.batch_size)
        if self.device.type == "cpu" and self.x[0].numel() <= _SMALL:
            found.batch = _TILES * TILE
        return found

    def of(
        self,
        forward: Callable[[Tensor], Tensor],
        restarts: int = 1,
        progress: Progress | None = None,
    ) -> Attacked:
        """What a network loses on the examples.

        Raises:
            NotMeasuredError: losses that are not finite.
        """
        runner = self.runner(forward)
        if self.threat is not None:
            return pgd_with(
                runner, self.x, self.y, self.threat, steps=self.steps, step_size=self.step,
                restarts=restarts, seed=self.seed, index=self.index, progress=progress,
            )  # fmt: skip
        logits = runner.logits(self.x).cpu()
        found = cross_entropy(logits, self.y.cpu())
        if not bool(found.isfinite().all()):
            raise NotMeasuredError("the network's logits are not finite on some images")
        if progress is not None:
            progress(len(self.x), len(self.x))
        right = logits.argmax(1) == self.y.cpu()
        return Attacked(self.x, found, right, right, len(self.x), 0)
