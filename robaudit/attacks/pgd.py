"""Projected gradient descent, on cross-entropy (PGD) or on the margin (CW)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from robaudit.attacks.balls import ascend, project, random_start
from robaudit.attacks.objectives import OBJECTIVES, LossName, cross_entropy
from robaudit.attacks.result import Ascended
from robaudit.engine import TILE, Runner, device_of, frozen
from robaudit.engine.runner import BatchSize
from robaudit.errors import NotMeasuredError
from robaudit.types import Progress, Remember, ThreatModel, forget

# Examples whose state is on the device at once; it bounds memory, not results.
_CHUNK = 16 * TILE


def pgd(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    threat: ThreatModel,
    *,
    steps: int = 20,
    step_size: float | None = None,
    restarts: int = 1,
    loss: LossName = "ce",
    mode: Literal["loss", "accuracy"] = "loss",
    seed: int = 0,
    index: Tensor | None = None,
    start: Tensor | None = None,
    batch_size: BatchSize = "auto",
    progress: Progress | None = None,
) -> Ascended:
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
            example go as soon as it is misclassified.
        index: ``(n,)`` the examples' places in their data set, which seed their starts.
        start: ``(n, c, h, w)`` where the first restart begins, in place of a random point; those
            outside the ball or the box are projected.
        batch_size: images per pass on a GPU; results do not depend on it.

    Raises:
        NotMeasuredError: logits or losses that are not finite.

    Source: Madry et al., "Towards deep learning models resistant to adversarial attacks", 2018.

    >>> from torch import nn
    >>> net = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    >>> found = pgd(net, torch.rand(3, 1, 2, 2), torch.zeros(3).long(), ThreatModel("linf", 0.1))
    >>> found.x.shape, bool((found.robust <= found.correct).all())
    (torch.Size([3, 1, 2, 2]), True)
    """
    with frozen(model):
        runner = Runner(model, device_of(model), batch_size)
        return pgd_with(
            runner, x, y, threat, steps=steps, step_size=step_size, restarts=restarts, loss=loss,
            mode=mode, seed=seed, index=index, start=start, progress=progress,
        )  # fmt: skip


def pgd_with(
    runner: Runner,
    x: Tensor,
    y: Tensor,
    threat: ThreatModel,
    *,
    steps: int = 20,
    step_size: float | None = None,
    restarts: int = 1,
    loss: LossName = "ce",
    mode: Literal["loss", "accuracy"] = "loss",
    seed: int = 0,
    index: Tensor | None = None,
    start: Tensor | None = None,
    remember: Remember = forget,
    progress: Progress | None = None,
) -> Ascended:
    """:func:`pgd` on any function from images to logits, run by ``runner``.

    Args:
        remember: keeps each finished part of the examples.
    """
    step = threat.eps / 4 if step_size is None else step_size
    index = torch.arange(len(x)) if index is None else index
    total = len(x) * restarts * (steps + 1)
    pieces = []
    for begin in range(0, len(x), _CHUNK):
        part = slice(begin, begin + _CHUNK)

        def run(part: slice = part) -> dict[str, Tensor]:
            before = torch.tensor([runner.forwards, runner.backwards])
            rows = _Rows(runner, x[part], y[part], loss)
            spent = part.start * restarts * (steps + 1)

            def tick(done: int) -> None:
                if progress is not None:
                    progress(spent + done, total)

            first = None if start is None else start[part]
            for restart in range(restarts):
                rows.climb(index[part], threat, step, steps, seed, restart, mode, first, tick)
                first = None
            after = torch.tensor([runner.forwards, runner.backwards])
            return {**rows.piece(), "passes": after - before}

        pieces.append(remember(f"{begin:07d}", run))
    if progress is not None:
        progress(total, total)
    whole = {
        name: torch.cat([piece[name] for piece in pieces]).cpu()
        for name in ("x", "loss", "robust", "correct", "broken_x")
    }
    passes = torch.stack([piece["passes"] for piece in pieces]).sum(0).tolist()
    return Ascended(**whole, forwards=passes[0], backwards=passes[1])


class _Rows:
    """The state of a chunk of examples on the device: clean image, best iterate, verdict."""

    def __init__(self, runner: Runner, x: Tensor, y: Tensor, loss: LossName) -> None:
        self.runner = runner
        self.x = x.to(runner.device)
        self.y = y.to(runner.device)
        self.objective = OBJECTIVES[loss]
        logits = runner.logits(self.x)
        self.best = self.objective(logits, self.y)
        self.best_loss = cross_entropy(logits, self.y)
        self.best_x = self.x.clone()
        self.correct = logits.argmax(1) == self.y
        self.robust = self.correct.clone()
        self.broken_x = self.x.clone()
        self.broken_best = torch.full_like(self.best, -torch.inf)
        self._check(self.best)

    def piece(self) -> dict[str, Tensor]:
        """The rows of a result."""
        broken = (~self.robust).reshape(-1, *[1] * (self.x.dim() - 1))
        return {
            "x": self.best_x,
            "loss": self.best_loss,
            "robust": self.robust,
            "correct": self.correct,
            "broken_x": torch.where(broken, self.broken_x, self.best_x),
        }

    def climb(
        self,
        index: Tensor,
        threat: ThreatModel,
        step: float,
        steps: int,
        seed: int,
        restart: int,
        mode: Literal["loss", "accuracy"],
        start: Tensor | None,
        tick: Callable[[int], None],
    ) -> None:
        """One restart: ``steps`` ascent steps for the examples still in the race."""
        leave = mode == "accuracy"
        rows = torch.arange(len(self.x), device=self.x.device)
        if leave:
            rows = rows[self.robust]
        if len(rows) == 0:
            return
        if start is None:
            adv = random_start(self.x[rows], index[rows.cpu()], threat, seed, restart)
        else:
            adv = project(start.to(self.x)[rows], self.x[rows], threat)
        for at in range(steps):
            values, gradient, logits = self.runner.gradient(self.objective, adv, self.y[rows])
            self._meet(rows, adv, values, logits, first_break=leave)
            adv = project(ascend(adv, gradient, step, threat), self.x[rows], threat)
            if leave:
                alive = self.robust[rows]
                rows, adv = rows[alive], adv[alive]
                if len(rows) == 0:
                    return
            tick((restart * (steps + 1) + at + 1) * len(self.x))
        logits = self.runner.logits(adv)
        self._meet(rows, adv, self.objective(logits, self.y[rows]), logits, first_break=leave)

    def _meet(
        self, rows: Tensor, adv: Tensor, values: Tensor, logits: Tensor, first_break: bool
    ) -> None:
        self._check(values)
        y = self.y[rows]
        broken = logits.argmax(1) != y
        better = values > self.best[rows]
        kept = better | broken if first_break else better
        to = rows[kept]
        self.best[to] = values[kept]
        self.best_x[to] = adv[kept]
        worse = cross_entropy(logits, y)
        self.best_loss[rows] = torch.maximum(self.best_loss[rows], worse)
        self.robust[rows[broken]] = False
        worse_break = broken & (values > self.broken_best[rows])
        at = rows[worse_break]
        self.broken_best[at] = values[worse_break]
        self.broken_x[at] = adv[worse_break]

    @staticmethod
    def _check(values: Tensor) -> None:
        if not bool(values.isfinite().all()):
            raise NotMeasuredError(
                "the network's logits are not finite on some images",
                "Look for NaN or overflow in the weights; low precision can be a cause.",
            )
