"""Probes of accuracy, loss and their generalisation gaps."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from torch import Tensor

from robaudit.attacks import AttackResult
from robaudit.attacks.objectives import cross_entropy
from robaudit.attacks.result import known
from robaudit.attacks.verification import verify
from robaudit.audit.context import Context, Radius
from robaudit.audit.cross_check import diagnosed
from robaudit.audit.doubts import signs_of_masking
from robaudit.audit.numbers import LEVEL, accuracy, error_gap, loss, loss_gap
from robaudit.audit.plan import Pgd, Replay, Transfer
from robaudit.engine import frozen
from robaudit.schema import Measurement
from robaudit.statistics import clopper_pearson, clustered_accuracy
from robaudit.types import ThreatModel

_CURVE = {
    "order": "ascending",
    "attacked": "by PGD and CW every example, from where the radius before ended; by ensembles "
    "what the radius before left standing",
    "last": "the run at the threat model's radius, less what smaller radii broke",
}


def clean(context: Context) -> list[Measurement]:
    """Accuracy and loss on the clean images of every split."""
    found = []
    for split, examples in context.splits.items():
        with frozen(context.model):
            logits = context.runner().logits(examples.x).cpu()
        right = logits.argmax(1) == examples.y
        losses = cross_entropy(logits, examples.y)
        context.keep(split, "index", examples.index)
        context.keep(split, "label", examples.y)
        if (groups := context.groups(split, len(examples))) is not None:
            context.keep(split, "group", groups)
        context.keep(split, "accuracy.clean", right)
        context.keep(split, "loss.clean", losses)
        found += [accuracy("accuracy.clean", split, right), loss("loss.clean", split, losses)]
    return found


def pgd(context: Context, settings: Pgd) -> list[Measurement]:
    """Robust accuracy and robust loss under one PGD on every split, and the gaps."""
    described = pgd_settings(settings, context.threat)
    found: list[Measurement] = []
    robust: dict[str, Tensor] = {}
    losses: dict[str, Tensor] = {}
    doubts: list[str] = []
    for split in context.splits:
        attacked = context.adversarial(split, settings)
        robust[split], losses[split] = attacked.robust, attacked.loss
        context.keep(split, "accuracy.pgd", attacked.robust)
        context.keep(split, "loss.robust", attacked.loss)
        details: dict[str, Any] = passes(attacked)
        if split == context.main:
            context.broken["pgd"] = known(attacked.broken_x), ~attacked.robust
            seen = diagnosed(context, settings.loss, attacked)
            doubts = signs_of_masking(seen)
            details |= {**curve(context, context.within(settings)), "diagnostics": asdict(seen)}
        found += [
            accuracy("accuracy.pgd", split, attacked.robust, settings=described, details=details),
            loss("loss.robust", split, attacked.loss, settings=described),
        ]
    if len(context.splits) == 2:
        found += [
            error_gap(*robust.values(), settings=described),
            loss_gap(*losses.values(), settings=described),
        ]
    return [m.model_copy(update={"doubts": doubts}) for m in found]


def cw(context: Context, settings: Pgd) -> list[Measurement]:
    """Robust accuracy under PGD on the margin."""
    attacked = context.adversarial(context.main, settings)
    context.keep(context.main, "accuracy.cw", attacked.robust)
    context.broken["cw"] = known(attacked.broken_x), ~attacked.robust
    seen = diagnosed(context, settings.loss, attacked)
    details = {
        **passes(attacked), **curve(context, context.within(settings), with_loss=False),
        "diagnostics": asdict(seen),
    }  # fmt: skip
    return [
        accuracy(
            "accuracy.cw", context.main, attacked.robust,
            settings=pgd_settings(settings, context.threat), details=details,
            doubts=signs_of_masking(seen),
        )
    ]  # fmt: skip


def transfer(context: Context, settings: Transfer) -> list[Measurement]:
    """Accuracy on another network's PGD examples, which this one was never asked about."""
    attacked = context.transferred(settings.pgd)
    described = {**pgd_settings(settings.pgd, context.threat), "surrogate": settings.surrogate}
    own = int((~attacked.robust).sum())
    return [_judged(context, attacked.x, described, {**passes(attacked), "surrogate_broken": own})]


def replay(context: Context, settings: Replay) -> list[Measurement]:
    """Accuracy on adversarial examples from a file, each looked at again."""
    found = context.replayed
    assert found is not None
    judged = _judged(context, found.x, {**asdict(settings), "made_by": found.made_by}, {})
    breaks = context.broken["transfer"][1]
    unconfirmed = int((found.broken & ~breaks).sum())
    details = {
        **judged.details,
        "claimed": int(found.broken.sum()),
        "confirmed": int((found.broken & breaks).sum()),
        "made_on": found.made_on,
    }
    warnings = []
    if unconfirmed:
        warnings.append(
            f"{unconfirmed} of {details['claimed']} images that broke the network they were made "
            "on do not break this one, or leave the ball or the box"
        )
    return [judged.model_copy(update={"details": details, "warnings": warnings})]


def _judged(
    context: Context, x_adv: Tensor, settings: dict[str, Any], details: dict[str, Any]
) -> Measurement:
    """Accuracy on adversarial images that were made elsewhere."""
    examples = context.splits[context.main]
    judged = verify(context.model, examples.x, x_adv, examples.y, context.threat)
    robust = context.outcomes[f"{context.main}.accuracy.clean"] & ~judged.breaks
    context.keep(context.main, "accuracy.transfer", robust)
    context.broken["transfer"] = x_adv, judged.breaks
    held = {"in_ball": int(judged.in_ball.sum()), "in_box": int(judged.in_box.sum())}
    return accuracy(
        "accuracy.transfer", context.main, robust, settings=settings, details={**details, **held}
    )


def passes(attacked: AttackResult) -> dict[str, Any]:
    """What an attack cost, in images."""
    return {"forwards": attacked.forwards, "backwards": attacked.backwards}


def curve(context: Context, radii: list[Radius], with_loss: bool = True) -> dict[str, Any]:
    """The audited split's accuracy within each radius with its interval, of more than one."""
    if len(radii) < 2:
        return {}
    rows = []
    for radius in radii:
        n, count = len(radius.robust), int(radius.robust.sum())
        groups = context.groups(context.main, n)
        interval = (
            clopper_pearson(count, n, LEVEL)
            if groups is None
            else clustered_accuracy(radius.robust.numpy(), groups.numpy(), LEVEL)
        )
        row = {"eps": radius.eps, "value": count / n, "low": interval.low, "high": interval.high}
        if with_loss and radius.loss is not None:
            row["loss"] = float(radius.loss.double().mean())
        rows.append(row)
    return {"curve": rows, "curve_settings": dict(_CURVE)}


def pgd_settings(settings: Pgd, threat: ThreatModel) -> dict[str, Any]:
    """What a measurement says of its PGD."""
    return {
        "steps": settings.steps,
        "restarts": settings.restarts,
        "step_size": settings.step_over_eps * threat.eps,
        "loss": settings.loss,
        **({"last_iterate": True} if settings.last_iterate else {}),
    }
