"""The loss of every example, and what to report where a number is not finite."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robaudit.engine import device_of, frozen
from robaudit.errors import NotMeasuredError


def cross_entropies(model: nn.Module, x: Tensor, y: Tensor, chunk: int = 256) -> Tensor:
    """The cross-entropy of each example, ``(n,)`` float64 on the CPU, in nats.

    Raises:
        NotMeasuredError: with the number of examples on which it is not finite.
    """
    with frozen(model), torch.no_grad():
        device = device_of(model)
        parts = [
            F.cross_entropy(model(images.to(device)), labels.to(device), reduction="none")
            for images, labels in zip(torch.split(x, chunk), torch.split(y, chunk), strict=True)
        ]
    losses = torch.cat(parts).double().cpu()
    broken = int((~losses.isfinite()).sum())
    if broken:
        raise NotMeasuredError(f"the loss is not finite on {broken} of {len(x)} examples")
    return losses


def require_finite(
    values: Tensor,
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    what: str = "the loss's second derivative is",
) -> Tensor:
    """The values themselves.

    Raises:
        NotMeasuredError: a value is not finite; the message is about the loss where that is not
            finite either.
    """
    if not bool(values.isfinite().all()):
        cross_entropies(model, x, y)
        raise NotMeasuredError(f"{what} not finite")
    return values


def standard_error(values: Tensor) -> float:
    """``std(values) / sqrt(n)`` of ``(n,)`` independent values; ``nan`` for a single one."""
    n = len(values)
    return float(values.std() / n**0.5) if n > 1 else float("nan")
