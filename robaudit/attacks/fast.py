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

# Classes whose gradients are looked at, and those that are then targeted.
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
    """APGD on cross-entropy, then targeted APGD on the three classes that MALT puts nearest.

    A robust example costs at most 338 forward and 329 backward passes, against 7857 and 1910 of
    AutoAttack's standard version, of whose verdict this is no substitute. With fewer than four
    classes the targeted runs climb the margin in place of the DLR loss.

    Raises:
        NotMeasuredError: logits or losses that are not finite.

    Source: Croce & Hein, ICML 2020 (APGD); Melamed, Yehudai & Shamir, "MALT powers up adversarial
    attacks", NeurIPS 2024 (the choice of targets).
    """
    with Runner.of(model, batch_size) as runner:
        classes = runner.logits(x[:1]).shape[1]
        targets = min(TARGETS, classes - 1)
        loss: TargetableLoss = "dlr" if classes >= 4 else "margin"
        stages = [
            Stage("apgd-ce", partial(apgd, steps=STEPS), 2 * STEPS),
            Stage("apgd-malt", partial(_apgd_malt, loss=loss), 2 * STEPS * targets, targets),
        ]
        return in_turn(
            runner, x, y, threat, stages, classes, seed=seed, index=index, cache=cache,
            progress=progress,
        )  # fmt: skip


def _apgd_malt(
    runner: Runner, x: Tensor, y: Tensor, threat: ThreatModel, *, loss: TargetableLoss, **how: Any
) -> AttackResult:
    """APGD with the targets that MALT chooses."""
    before = runner.forwards, runner.backwards
    images, labels = x.to(runner.device), y.to(runner.device)
    targets = by_malt(
        runner, images, labels, runner.logits(images), TARGETS, norm=threat.norm,
        candidates=CANDIDATES,
    )  # fmt: skip
    found = apgd(runner, x, y, threat, loss=loss, targets=targets, steps=STEPS, **how)
    return replace(
        found, forwards=runner.forwards - before[0], backwards=runner.backwards - before[1]
    )
