"""The fast tier: two runs of Auto-PGD instead of an ensemble."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

from torch import Tensor, nn

from robaudit.attacks.apgd import apgd
from robaudit.attacks.ensemble import Stage, in_turn
from robaudit.attacks.objectives import TargetableLoss
from robaudit.attacks.result import AttackResult
from robaudit.attacks.targets import by_malt
from robaudit.engine import Runner
from robaudit.engine.arguments import checked
from robaudit.engine.runner import BatchSize
from robaudit.types import Cache, Progress, ThreatModel, no_cache

# Classes whose gradients are computed, and those that are then targeted.
CANDIDATES = 9
TARGETS = 3
STEPS = 80


@checked
def fast(
    model: nn.Module | Runner,
    x: Tensor,
    y: Tensor,
    threat: ThreatModel,
    *,
    seed: int = 0,
    index: Tensor | None = None,
    batch_size: BatchSize = "auto",
    cache: Cache = no_cache,
    progress: Progress | None = None,
) -> AttackResult:
    """The fast tier: APGD on cross-entropy, then targeted APGD on the three nearest classes.

    Which classes are nearest is decided by MALT, from the logits' gradients. A robust example costs
    at most 338 forward and 329 backward passes, against 7857 and 1910 of AutoAttack's standard
    version; the accuracy is no substitute for AutoAttack's. With fewer than four classes the
    targeted runs maximise the margin, because the targeted DLR loss needs four.

    Args:
        model: maps images in ``[0, 1]`` to logits ``(n, k)``; it runs in evaluation mode
            with frozen parameters and is left as it was. Or a :class:`robaudit.engine.Runner`.
        x, y: images ``(n, c, h, w)`` in ``[0, 1]`` and labels ``(n,)`` from 0.
        threat: norm and radius of the perturbations.
        seed: of all random draws.
        index: ``(n,)`` the examples' positions in their data set; each example's draws depend on
            its position and the seed only. ``0..n-1`` unless given.
        batch_size: images per pass on a GPU; no result depends on it. A Runner has its own.
        cache: keeps each finished part of the examples, so that an interrupted run can continue.
        progress: called with the work done and the work in all.

    Returns:
        All common fields and those of an ensemble; ``loss`` is ``nan``.

    Raises:
        NotMeasuredError: logits or losses that are not finite.

    Source: Croce & Hein, "Reliable evaluation of adversarial robustness with an ensemble of
    diverse parameter-free attacks", ICML 2020 (APGD); Melamed, Yehudai & Shamir, "MALT powers up
    adversarial attacks", NeurIPS 2024 (the choice of targets).

    >>> import torch
    >>> net = nn.Sequential(nn.Flatten(), nn.Linear(4, 5))
    >>> found = fast(net, torch.rand(3, 1, 2, 2), torch.zeros(3).long(), ThreatModel("l2", 0.1))
    >>> tuple(found.accuracies)
    ('apgd-ce', 'apgd-malt')
    """
    with Runner.of(model, batch_size) as runner:
        return in_turn(
            runner,
            x,
            y,
            threat,
            _stages,
            seed=seed,
            index=index,
            cache=cache,
            progress=progress,
        )


def _stages(classes: int) -> list[Stage]:
    targets = min(TARGETS, classes - 1)
    loss: TargetableLoss = "dlr" if classes >= 4 else "margin"
    return [
        Stage("apgd-ce", partial(apgd, steps=STEPS), 2 * STEPS),
        Stage("apgd-malt", partial(_apgd_malt, loss=loss), 2 * STEPS * targets, targets),
    ]


def _apgd_malt(
    runner: Runner, x: Tensor, y: Tensor, threat: ThreatModel, *, loss: TargetableLoss, **how: Any
) -> AttackResult:
    """APGD with the targets that MALT chooses."""
    before = runner.forwards, runner.backwards
    images, labels = x.to(runner.device), y.to(runner.device)
    targets = by_malt(
        runner,
        images,
        labels,
        runner.logits(images),
        TARGETS,
        norm=threat.norm,
        candidates=CANDIDATES,
    )
    found = apgd(runner, x, y, threat, loss=loss, targets=targets, steps=STEPS, **how)
    return replace(
        found, forwards=runner.forwards - before[0], backwards=runner.backwards - before[1]
    )
