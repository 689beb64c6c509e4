"""What the probes of one audit share: model, examples, and adversarial examples made once."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from robaudit.attacks import Attacked, pgd
from robaudit.audit.plan import Pgd
from robaudit.engine.runner import BatchSize
from robaudit.types import Examples, Progress, ThreatModel

Watch = Callable[[str], AbstractContextManager[Progress | None]]


def no_watch(_: str) -> AbstractContextManager[Progress | None]:
    """Nobody looks on."""
    return nullcontext()


@dataclass
class Context:
    """One audit in progress.

    Attributes:
        splits: by name, the audited one first; a second one only where the gap is measured.
        watch: opens a progress display for a named piece of work.
        outcomes: per-example results by ``split.name``, for ``examples.npz``.
    """

    model: nn.Module
    splits: Mapping[str, Examples]
    threat: ThreatModel
    seed: int
    batch_size: BatchSize
    watch: Watch = no_watch
    outcomes: dict[str, Tensor] = field(default_factory=dict)
    _made: dict[tuple[str, Pgd], Attacked] = field(default_factory=dict)

    @property
    def main(self) -> str:
        """The split that is audited."""
        return next(iter(self.splits))

    def adversarial(self, split: str, settings: Pgd, n: int | None = None) -> Attacked:
        """PGD examples in loss mode for the first ``n`` of a split, made at most once.

        An example's result does not depend on which others are attacked with it, so a part of what
        is there already is what attacking that part alone would give.
        """
        examples = self.splits[split]
        n = len(examples) if n is None else min(n, len(examples))
        made = self._made.get((split, settings))
        if made is None or len(made.x) < n:
            label = "CW" if settings.loss == "margin" else "PGD"
            with self.watch(f"{label}-{settings.steps} on {n} {split} examples") as progress:
                made = pgd(
                    self.model,
                    examples.x[:n],
                    examples.y[:n],
                    self.threat,
                    steps=settings.steps,
                    restarts=settings.restarts,
                    step_size=settings.step_over_eps * self.threat.eps,
                    loss=settings.loss,
                    seed=self.seed,
                    index=examples.index[:n],
                    batch_size=self.batch_size,
                    progress=progress,
                )
            self._made[split, settings] = made
        if len(made.x) == n:
            return made
        return dataclasses.replace(
            made,
            **{name: getattr(made, name)[:n] for name in ("x", "loss", "robust", "correct")},
        )

    def keep(self, split: str, name: str, values: Tensor) -> None:
        """Remember a per-example outcome."""
        self.outcomes[f"{split}.{name}"] = values.detach().cpu()

    def y(self, split: str, n: int) -> Tensor:
        return self.splits[split].y[:n]

    def index(self, split: str, n: int) -> Tensor:
        return self.splits[split].index[:n]

    def sync(self) -> None:
        """Wait for the device, so that seconds mean something."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
