"""One plain training loop: stochastic gradient descent with momentum, seeded."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from robaudit.types import Images, Labels


class Objective(Protocol):
    """The loss of a batch, a scalar; draws its randomness from ``generator``."""

    def __call__(
        self, model: nn.Module, x: Images, y: Labels, generator: torch.Generator, /
    ) -> Tensor: ...


def cosine(peak: float, epochs: int, *, warmup: int = 0, floor: float = 0.0) -> list[float]:
    """Learning rates: linear warm-up to ``peak``, then half a cosine down to about ``floor``.

    >>> [round(rate, 3) for rate in cosine(0.1, 4)]
    [0.1, 0.085, 0.05, 0.015]
    """
    falling = epochs - warmup
    up = [peak * (epoch + 1) / (warmup + 1) for epoch in range(warmup)]
    return up + [
        floor + (peak - floor) * (1 + math.cos(math.pi * t / falling)) / 2 for t in range(falling)
    ]


def train(
    model: nn.Module,
    x: Images,
    y: Labels,
    objective: Objective,
    *,
    learning_rates: Sequence[float],
    batch_size: int = 128,
    momentum: float = 0.9,
    weight_decay: float = 0.0,
    clip_norm: float | None = None,
    seed: int = 0,
    on_epoch: Callable[[int, float], None] | None = None,
) -> None:
    """Train ``model`` in place: one pass over ``(x, y)`` in random order per learning rate.

    ``v <- m v + g + wd w``, ``w <- w - lr v`` with ``g`` the gradient of ``objective``. The order
    of the examples and every random draw follow ``seed``: on a CPU with one thread, two runs give
    the same weights bit for bit. The model is left in eval mode.

    Args:
        model: trained in place; in train mode while ``objective`` is called.
        x: images ``(n, c, h, w)``.
        y: labels ``(n,)``.
        objective: the loss to descend, such as :func:`robaudit.training.at.at_loss`.
        learning_rates: one per epoch.
        batch_size: a last, smaller batch of an epoch is used as well.
        momentum: ``m``.
        weight_decay: ``wd``, on every parameter.
        clip_norm: longest gradient (l2 norm over all parameters) that is not shortened.
        seed: of the order, of the objective and of the model's own draws such as dropout.
        on_epoch: called after each epoch with its number from 1 and the mean objective, the model
            in eval mode.
    """
    generator = torch.Generator(x.device).manual_seed(seed)
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(parameters, 0.0, momentum, weight_decay=weight_decay)
    devices = [x.device] if x.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        for epoch, rate in enumerate(learning_rates, start=1):
            for group in optimizer.param_groups:
                group["lr"] = rate
            model.train()
            total = 0.0
            order = torch.randperm(len(x), generator=generator, device=x.device)
            for batch in torch.split(order, batch_size):
                loss = objective(model, x[batch], y[batch], generator)
                optimizer.zero_grad(set_to_none=True)
                loss.backward()  # type: ignore[no-untyped-call]
                if clip_norm is not None:
                    nn.utils.clip_grad_norm_(parameters, clip_norm)
                optimizer.step()
                total += float(loss.detach()) * len(batch)
            model.eval()
            if on_epoch is not None:
                on_epoch(epoch, total / len(x))
