"""Logits of audited images; networks with more outputs than the data has classes."""

from __future__ import annotations

import torch
from torch import Tensor

from robaudit.attacks.blocks import check_finite
from robaudit.audit.context import Context
from robaudit.audit.failures import not_measured
from robaudit.engine import TILE, device_of, frozen
from robaudit.engine.logits import logits_of
from robaudit.errors import NotMeasuredError

_LOOKED_AT = 512


def finite_logits(context: Context, x: Tensor) -> Tensor:
    """Logits ``(n, k)`` of images ``(n, c, h, w)``, on the CPU.

    Raises:
        NotMeasuredError: some of them are not finite.
    """
    with frozen(context.model):
        logits = context.runner().logits(x)
    check_finite(logits)
    return logits.cpu()


def outputs_beyond(context: Context, adversarial: Tensor | None) -> list[str]:
    """A warning where the network has more outputs than the data has classes.

    An attack that reaches such a class has broken the network, though no image belongs to it.

    Args:
        adversarial: the audit's adversarial images, one for each audited example.

    If the network raises an exception there is no warning; its measurements report that.
    """
    try:
        with not_measured():
            return _beyond(context, adversarial)
    except NotMeasuredError:
        return []


def _beyond(context: Context, adversarial: Tensor | None) -> list[str]:
    examples = context.splits[context.main]
    labels = examples.classes or int(examples.y.max()) + 1
    clean = _classes(context, examples.x[:_LOOKED_AT])
    outputs, predicted = clean
    if outputs <= labels:
        return []
    where = [f"{_count(predicted, labels)} clean"]
    if adversarial is not None:
        _, attacked = _classes(context, adversarial[:_LOOKED_AT])
        where.append(f"{_count(attacked, labels)} adversarial")
    known = f"{labels} classes" if examples.classes else f"labels up to {labels - 1}"
    return [
        f"the network has {outputs} outputs and {examples.name} has {known}: of {len(predicted)} "
        f"images {' and '.join(where)} ones are put into outputs that no label stands for"
    ]


def _classes(context: Context, x: Tensor) -> tuple[int, Tensor]:
    model, device = context.model, device_of(context.model)
    with frozen(model), torch.no_grad():
        parts = [logits_of(model, part.to(device)) for part in torch.split(x, TILE)]
    logits = torch.cat(parts)
    return logits.shape[1], logits.argmax(1).cpu()


def _count(predicted: Tensor, labels: int) -> int:
    return int((predicted >= labels).sum())
