"""A plain, seeded training loop: stochastic gradient descent with momentum."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from robaudit.errors import NotMeasuredError

if TYPE_CHECKING:
    from robaudit.training.extra_data import ExtraData
    from robaudit.types import Images, Labels


_READ_EVERY = 50


class Loss(Protocol):
    """The loss of a batch, a scalar; random draws come from ``generator``."""

    def __call__(
        self, model: nn.Module, x: Images, y: Labels, generator: torch.Generator, /
    ) -> Tensor: ...


class DivergedError(NotMeasuredError):
    """The loss or a weight is not finite.

    Attributes:
        step: number of the step in the epoch, from 1.
    """

    def __init__(self, what: str, step: int) -> None:
        super().__init__(f"{what} at step {step}")
        self.step = step


def train(
    model: nn.Module,
    x: Images,
    y: Labels,
    objective: Loss,
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
    of the examples and every random draw are determined by ``seed``: on a CPU with one thread, two
    runs give the same weights bit for bit. The model is left in eval mode.

    Args:
        model: trained in place; in train mode while ``objective`` is called.
        x: images ``(n, c, h, w)``.
        y: labels ``(n,)``.
        objective: the loss, such as an :class:`~robaudit.training.At`.
        learning_rates: one per epoch.
        batch_size: a last, smaller batch of an epoch is used as well.
        momentum: ``m``.
        weight_decay: ``wd``, on every parameter.
        clip_norm: largest l2 norm of the gradient over all parameters; longer ones are clipped.
        seed: of the order, of the objective, and of random draws of the model such as dropout.
        on_epoch: called after each epoch with its number, from 1, and the mean objective; the
            model is in eval mode.

    Raises:
        DivergedError: the loss is not finite.
    """
    generator = torch.Generator(x.device).manual_seed(seed)
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(parameters, 0.0, momentum, weight_decay=weight_decay)

    def descend(x: Images, y: Labels) -> Tensor:
        loss = objective(model, x, y, generator)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    devices = [x.device] if x.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        for epoch, rate in enumerate(learning_rates, start=1):
            for group in optimizer.param_groups:
                group["lr"] = rate
            model.train()
            mean = run_epoch(
                x, y, descend, optimizer, generator, batch_size=batch_size, clip_norm=clip_norm
            ).loss
            model.eval()
            if on_epoch is not None:
                on_epoch(epoch, mean)


class Pass(NamedTuple):
    """An epoch's mean loss and the number of images in its batches."""

    loss: float
    images: int


def run_epoch(
    x: Images,
    y: Labels,
    descend: Callable[[Images, Labels], Tensor],
    optimizer: torch.optim.Optimizer,
    generator: torch.Generator,
    *,
    batch_size: int,
    clip_norm: float | None = None,
    after_step: Callable[[], None] | None = None,
    every: int | None = None,
    extra: ExtraData | None = None,
) -> Pass:
    """One pass over ``(x, y)`` in random order, or one with extra data.

    Args:
        descend: adds a batch's gradients to the parameters' and returns its loss, a scalar.
        after_step: called after every step of the optimizer.
        every: steps after which losses are read; reading one makes a GPU's queue run empty. It is
            1 on a CPU and 50 elsewhere unless given.
        extra: fills a part of each batch.

    Raises:
        DivergedError: a loss is not finite; unless it is read later, the weights are not updated
            with it.
    """
    every = every or (1 if x.device.type == "cpu" else _READ_EVERY)
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    total, images, unread = 0.0, 0, list[tuple[Tensor, int]]()
    batches = (
        _batches(x, y, batch_size, generator)
        if extra is None
        else extra.batches(x, y, batch_size, generator)
    )
    last = -(-len(x) // batch_size)
    for step, (x_part, y_part) in enumerate(batches, start=1):
        optimizer.zero_grad(set_to_none=True)
        unread.append((descend(x_part, y_part), len(x_part)))
        if step % every == 0 or step == last:
            first = step - len(unread) + 1
            losses = torch.stack([loss for loss, _ in unread]).tolist()
            for at, (loss, (_, count)) in enumerate(zip(losses, unread, strict=True), start=first):
                if not math.isfinite(loss):
                    raise DivergedError(f"the loss is {loss}", at)
                total += loss * count
                images += count
            unread.clear()
        if clip_norm is not None:
            nn.utils.clip_grad_norm_(parameters, clip_norm)
        optimizer.step()
        if after_step is not None:
            after_step()
    return Pass(total / images, images)


def _batches(
    x: Images, y: Labels, batch_size: int, generator: torch.Generator
) -> Iterator[tuple[Images, Labels]]:
    order = torch.randperm(len(x), generator=generator, device=x.device)
    for rows in torch.split(order, batch_size):
        yield x[rows], y[rows]
