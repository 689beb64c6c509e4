"""Probes of accuracy, loss and their generalisation gaps."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from torch import Tensor

from robaudit.attacks import autoattack
from robaudit.attacks.objectives import cross_entropy
from robaudit.audit.context import Context
from robaudit.audit.numbers import accuracy, error_gap, loss, loss_gap
from robaudit.audit.plan import AutoAttack, Pgd
from robaudit.engine import Runner, device_of, frozen
from robaudit.schema import Measurement


def clean(context: Context) -> list[Measurement]:
    """Accuracy and loss on the clean images of every split."""
    found = []
    device = device_of(context.model)
    for split, examples in context.splits.items():
        with frozen(context.model):
            logits = Runner(context.model, device, context.batch_size).logits(examples.x).cpu()
        right = logits.argmax(1) == examples.y
        losses = cross_entropy(logits, examples.y)
        context.keep(split, "index", examples.index)
        context.keep(split, "label", examples.y)
        context.keep(split, "accuracy.clean", right)
        context.keep(split, "loss.clean", losses)
        found += [accuracy("accuracy.clean", split, right), loss("loss.clean", split, losses)]
    return found


def pgd(context: Context, settings: Pgd) -> list[Measurement]:
    """Robust accuracy and robust loss under one PGD on every split, and the gaps."""
    described = _described(context, settings)
    found: list[Measurement] = []
    robust: dict[str, Tensor] = {}
    losses: dict[str, Tensor] = {}
    for split in context.splits:
        attacked = context.adversarial(split, settings)
        robust[split], losses[split] = attacked.robust, attacked.loss
        context.keep(split, "accuracy.pgd", attacked.robust)
        context.keep(split, "loss.robust", attacked.loss)
        spent = {"forwards": attacked.forwards, "backwards": attacked.backwards}
        found += [
            accuracy("accuracy.pgd", split, attacked.robust, settings=described, details=spent),
            loss("loss.robust", split, attacked.loss, settings=described),
        ]
    if len(context.splits) == 2:
        found += [
            error_gap(*robust.values(), settings=described),
            loss_gap(*losses.values(), settings=described),
        ]
    return found


def cw(context: Context, settings: Pgd) -> list[Measurement]:
    """Robust accuracy under PGD on the margin."""
    attacked = context.adversarial(context.main, settings)
    context.keep(context.main, "accuracy.cw", attacked.robust)
    spent = {"forwards": attacked.forwards, "backwards": attacked.backwards}
    described = _described(context, settings)
    return [
        accuracy("accuracy.cw", context.main, attacked.robust, settings=described, details=spent)
    ]


def auto(context: Context, settings: AutoAttack) -> list[Measurement]:
    """Robust accuracy under AutoAttack by the reference library."""
    examples = context.splits[context.main]
    label = f"AutoAttack {settings.version} on {len(examples)} {context.main} examples"
    with context.watch(label) as progress:
        attacked = autoattack(
            context.model,
            examples.x,
            examples.y,
            context.threat,
            version=settings.version,
            seed=context.seed,
            batch_size=settings.batch_size,
            progress=progress,
        )
    context.keep(context.main, "accuracy.autoattack", attacked.robust)
    return [
        accuracy(
            "accuracy.autoattack",
            context.main,
            attacked.robust,
            settings={**asdict(settings), "engine": "pyautoattack"},
            details={
                "attacks": attacked.accuracies,
                "forwards": attacked.forwards,
                "backwards": attacked.backwards,
            },
            warnings=list(attacked.notes),
        )
    ]


def _described(context: Context, settings: Pgd) -> dict[str, Any]:
    return {
        "steps": settings.steps,
        "restarts": settings.restarts,
        "step_size": settings.step_over_eps * context.threat.eps,
        "loss": settings.loss,
    }
