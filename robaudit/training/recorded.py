"""The passes of the inner attack, recorded once and replayed while training changes the weights."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from robaudit.engine.captured import Captured
from robaudit.engine.logits import Pull
from robaudit.engine.precision import Precision


class RecordedNetwork:
    """A network's logits, differentiable in the images, by recorded passes where there are some.

    Recorded passes read weights and running statistics where they are, so that a step of the
    optimizer, which writes them in place, needs no new ones.

    Args:
        model: in evaluation mode and frozen when it is called.
        precision: the arithmetic that the caller sets.
    """

    def __init__(
        self, model: nn.Module, device: torch.device, precision: Precision = "fp32"
    ) -> None:
        self.passes = Captured(model, device, precision)

    def __call__(self, x: Tensor) -> Tensor:
        with _uncached(x.device.type):
            if not (torch.is_grad_enabled() and x.requires_grad):
                return self.passes.logits(x)
            logits: Tensor = _Pass.apply(x, self.passes)
            return logits


def _uncached(device: str) -> torch.autocast:
    """The caller's autocast, which must not keep the bfloat16 copy of the images of a recording:
    replays would read it in place of the next images.
    """
    kind, on = torch.get_autocast_dtype(device), torch.is_autocast_enabled(device)
    return torch.autocast(device, dtype=kind, enabled=on, cache_enabled=False)


class _Pass(torch.autograd.Function):
    """Two recorded functions as one with a gradient; it is called back at most once."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, passes: Captured) -> Tensor:
        logits, ctx.pull = passes.pair(x)
        return logits

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor | None, None]:
        pull: Pull | None = ctx.pull
        return (None if pull is None else pull(slopes[0])), None
