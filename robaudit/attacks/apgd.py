"""Auto-PGD: projected gradient ascent that sets its own step size."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from robaudit.attacks.apgd_loop import Verdicts
from robaudit.attacks.apgd_radii import Restart, climb
from robaudit.attacks.blocks import raised, rows_at_once
from robaudit.attacks.driver import Chunk, run_in_parts
from robaudit.attacks.objectives import (
    TARGETED,
    UNTARGETED,
    TargetableLoss,
    as_cross_entropy,
    cross_entropy,
    rising_cross_entropy,
)
from robaudit.attacks.result import AttackResult
from robaudit.attacks.targets import by_confidence
from robaudit.engine import Runner
from robaudit.engine.arguments import checked
from robaudit.engine.runner import BatchSize
from robaudit.types import Cache, Progress, ThreatModel, no_cache

Mode = Literal["loss", "accuracy"]


@checked
def apgd(
    model: nn.Module | Runner,
    x: Tensor,
    y: Tensor,
    threat: ThreatModel,
    *,
    loss: TargetableLoss = "ce",
    targets: int | Tensor = 0,
    steps: int = 100,
    restarts: int = 1,
    samples: int = 1,
    mode: Mode = "accuracy",
    seed: int = 0,
    index: Tensor | None = None,
    batch_size: BatchSize = "auto",
    cache: Cache = no_cache,
    progress: Progress | None = None,
) -> AttackResult:
    """Auto-PGD: maximise a loss over each image's ball with momentum and an adaptive step size.

    linf and l2: ``x_{t+1} = P(x_t + 0.75 (z - x_t) + 0.25 (x_t - x_{t-1}))`` with
    ``z = P(x_t + a d_t)``; ``a`` starts at ``2 eps`` and is halved, from the best point so far, at
    checkpoints where the loss rose too seldom. l1: sparse sign steps, projected on the ball and the
    box together, first within three and two times ``eps``.

    Args:
        model: maps images in ``[0, 1]`` to logits ``(n, k)``; it runs in evaluation mode
            with frozen parameters and is left as it was. Or a :class:`robaudit.engine.Runner`.
        x, y: images ``(n, c, h, w)`` in ``[0, 1]`` and labels ``(n,)`` from 0.
        threat: norm and radius of the perturbations.
        loss: ``ce``, cross-entropy; ``margin``; ``dlr``, the difference of logits ratio, which
            needs three classes, and four with targets.
        targets: 0 for the untargeted loss; the number of largest other logits to target, one run
            for each; or the target classes themselves, ``(n, t)``.
        steps: gradient steps per restart and target.
        restarts: random starts.
        samples: gradients averaged at each point, for networks that draw at random.
        mode: ``accuracy`` stops an example soon after it is misclassified; ``loss`` runs every
            example to the end and returns the point with the highest objective.
        seed: of all random draws.
        index: ``(n,)`` the examples' positions in their data set; each example's draws depend on
            its position and the seed only. ``0..n-1`` unless given.
        batch_size: images per pass on a GPU; no result depends on it. A Runner has its own.
        cache: keeps each finished part of the examples, so that an interrupted run can continue.
        progress: called with the work done and the work in all.

    Returns:
        All common fields, ``stuck``, ``reached`` and ``zero_gradient``; ``loss`` only for
        ``loss="ce"`` without targets.

    Raises:
        NotMeasuredError: logits or losses that are not finite.

    Source: Croce & Hein, "Reliable evaluation of adversarial robustness with an ensemble of
    diverse parameter-free attacks", ICML 2020, Alg. 1; l1 from Croce & Hein, "Mind the box: l1-APGD
    for sparse adversarial attacks on image classifiers", ICML 2021.

    >>> net = nn.Sequential(nn.Flatten(), nn.Linear(4, 5))
    >>> found = apgd(net, torch.rand(3, 1, 2, 2), torch.zeros(3).long(), ThreatModel("l2", 0.1))
    >>> found.x.shape, bool((found.robust <= found.correct).all())
    (torch.Size([3, 1, 2, 2]), True)
    """
    with Runner.of(model, batch_size) as runner:

        def attack(part: Chunk) -> dict[str, Tensor]:
            aimed = targets if isinstance(targets, int) else targets[part.rows]
            chunk = _ApgdChunk(runner, part, threat, loss, aimed, mode)
            for restart in range(restarts):
                chunk.restart(steps, samples, seed, restart, part.tick_of(restart, restarts))
            robust = chunk.verdicts.robust
            return {
                "x": chunk.verdicts.found,
                "loss": chunk.loss,
                "robust": robust,
                "zero_gradient": chunk.zero_gradient,
                "stuck": chunk.stuck & robust,
                "reached": chunk.best,
            }

        aims = targets if isinstance(targets, int) else targets.shape[1]
        size = max(1, rows_at_once(runner, x) // max(1, aims))
        return run_in_parts(runner, x, y, index, size, attack, cache=cache, progress=progress)


class _ApgdChunk:
    """Examples attacked together: their verdicts and their best points."""

    def __init__(
        self,
        runner: Runner,
        part: Chunk,
        threat: ThreatModel,
        loss: TargetableLoss,
        targets: int | Tensor,
        mode: Mode,
    ) -> None:
        self.runner, self.threat, self.early_exit = runner, threat, mode == "accuracy"
        self.part, self.x, self.y = part, part.x, part.y
        self.correct = part.correct
        self.verdicts = Verdicts(self.x, self.correct)
        self.targets: Tensor | None
        if isinstance(targets, int):
            self.targets = by_confidence(part.logits, self.y, targets) if targets else None
        else:
            self.targets = targets.to(runner.device)
        self.stream = f"apgd {loss}"
        self.objective = (UNTARGETED if self.targets is None else TARGETED)[loss]
        self.maximises_loss = loss == "ce" and self.targets is None
        self.loss = torch.full_like(part.logits[:, 0], torch.nan)
        self.best = torch.full_like(self.loss, -torch.inf)
        if self.maximises_loss:
            self.loss = cross_entropy(part.logits, self.y)
            self.best = rising_cross_entropy(part.logits, self.y)
        self.zero_gradient = torch.zeros_like(self.correct)
        self.stuck = self.correct.clone()

    def restart(
        self, steps: int, samples: int, seed: int, restart: int, tick: Callable[[float], None]
    ) -> None:
        """One restart, for all targets at once."""
        attacked = torch.arange(len(self.x), device=self.x.device)
        if self.early_exit:
            attacked = attacked[self.verdicts.robust]
        if len(attacked) == 0:
            return
        streams = [self.stream]
        if self.targets is not None:
            streams = [f"{self.stream} {rank}" for rank in range(self.targets.shape[1])]
        settings = Restart(
            self.threat,
            self.objective,
            steps,
            seed,
            restart,
            tuple(streams),
            samples,
            self.early_exit,
        )
        found = climb(self.runner, self.part, self.verdicts, attacked, self.targets, settings, tick)
        self.zero_gradient[found.example[found.zero_gradient]] = True
        self.stuck[found.example[found.rose]] = False
        self._keep_best(found.example, found.best, found.best_x)

    def _keep_best(self, example: Tensor, best: Tensor, best_x: Tensor) -> None:
        self.best, risen, row = raised(self.best, example, best)
        if not self.early_exit:
            self.verdicts.found[risen] = best_x[row]
        if self.maximises_loss:
            self.loss = as_cross_entropy(self.best)
