"""Forward and backward passes in tiles of a fixed number of images.

A convolution may use another kernel for another batch size, which changes its last bits. So every
pass runs on a multiple of :data:`TILE` images, the last tile padded with copies of its last row. On
a CPU it runs on exactly one tile at a time, which is as fast as larger batches and makes results
equal bit for bit for every batch size, order and set of other images.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor, nn

from robaudit.engine.device import device_of
from robaudit.engine.edges import JustInside, sighted
from robaudit.engine.freezing import frozen
from robaudit.engine.images import rows_of
from robaudit.engine.logits import Forward, logits_of
from robaudit.engine.precision import Precision, arithmetic
from robaudit.errors import NotMeasuredError

TILE = 64
CUDA_BATCH = 1024

PerImageObjective = Callable[[Tensor, Tensor], Tensor]
BatchSize = int | Literal["auto"]


class Runner:
    """Runs ``forward: (b, c, h, w) -> (b, k)`` over any number of images, and counts the passes.

    Logits come out in the images' precision; see :func:`~robaudit.engine.logits.logits_of`.

    Attributes:
        precision: the arithmetic of its passes (:func:`robaudit.engine.arithmetic`).
        batch: images per pass on a GPU, a multiple of ``TILE``; halved when memory runs out.
        forwards, backwards: images passed, padding not counted.
        backoffs: the batch sizes that did not fit.
    """

    def __init__(
        self,
        forward: Callable[[Tensor], Tensor],
        device: torch.device,
        batch_size: BatchSize = "auto",
        *,
        precision: Precision = "fp32",
    ) -> None:
        self.forward = forward
        self.device = device
        self.precision = precision
        if device.type == "cpu":
            self.batch = TILE
        else:
            asked = CUDA_BATCH if batch_size == "auto" else batch_size
            self.batch = max(1, -(-asked // TILE)) * TILE
        self.backoffs: list[int] = []
        self._sighted: Forward | None = None
        self.forwards = 0
        self.backwards = 0

    @classmethod
    @contextmanager
    def of(cls, model: nn.Module | Runner, batch_size: BatchSize = "auto") -> Iterator[Runner]:
        """A runner of a module, which is frozen inside the context; a runner is given as it is."""
        if isinstance(model, Runner):
            yield model
        else:
            with frozen(model):
                yield cls(model, device_of(model), batch_size)

    def logits(self, x: Tensor, used: int | None = None) -> Tensor:
        """Logits ``(n, k)`` of images ``(n, c, h, w)``, on the runner's device.

        ``used`` is the number of images that count as passes, where the caller has padded them.
        """

        def one(tile: Tensor, _: Tensor) -> tuple[Tensor]:
            with torch.no_grad():
                return (self._pass(self.forward, tile),)

        self.forwards += len(x) if used is None else used
        (logits,) = self._run(one, x, torch.zeros(len(x), dtype=torch.long))
        return logits

    def gradient(
        self, objective: PerImageObjective, x: Tensor, y: Tensor, used: int | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Objective ``(n,)``, its gradient in the images ``(n, c, h, w)``, and logits ``(n, k)``.

        ``objective(logits, y)`` gives one value per image, so that the images do not mix; ``used``
        as in :meth:`logits`. Where a network has no gradient at the edges of the box it is taken
        just inside (:mod:`robaudit.engine.edges`), with one more forward pass. Entries of the
        gradient that are not finite are zero: steps along them would leave the ball.
        """
        values, gradient, logits = self.exact_gradient(objective, x, y, used)
        return values, gradient.nan_to_num(0.0, 0.0, 0.0), logits

    def exact_gradient(
        self, objective: PerImageObjective, x: Tensor, y: Tensor, used: int | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """As :meth:`gradient`, with entries that are not finite as they are."""
        if self._sighted is None:
            self._sighted = sighted(self.forward, x[:1].to(self.device))
        forward = self._sighted

        def one(tile: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            with torch.enable_grad():
                leaf = tile.detach().requires_grad_()
                logits = self._pass(forward, leaf)
                if not logits.requires_grad:
                    raise NotMeasuredError(
                        "the network's logits have no gradient in the image",
                        "Attack it without gradients: --attack square.",
                    )
                values = objective(logits, labels)
                (gradient,) = torch.autograd.grad(values.sum(), leaf)
            return values.detach(), gradient, logits.detach()

        passed = len(x) if used is None else used
        self.forwards += 2 * passed if isinstance(forward, JustInside) else passed
        self.backwards += passed
        values, gradient, logits = self._run(one, x, y)
        return values, gradient, logits

    def _pass(self, forward: Forward, tile: Tensor) -> Tensor:
        return logits_of(forward, tile)

    def _run(
        self, one: Callable[[Tensor, Tensor], tuple[Tensor, ...]], x: Tensor, y: Tensor
    ) -> tuple[Tensor, ...]:
        while True:
            try:
                with arithmetic(self.precision):
                    parts = [
                        tuple(part[:used] for part in one(tile, labels))
                        for tile, labels, used in self._tiles(x, y)
                    ]
                if len(parts) == 1:
                    return parts[0]
                return tuple(torch.cat(column) for column in zip(*parts, strict=True))
            except torch.cuda.OutOfMemoryError:
                if self.batch <= TILE:
                    raise
                self.backoffs.append(self.batch)
                self.batch = max(TILE, self.batch // 2 // TILE * TILE)
                torch.cuda.empty_cache()

    def _tiles(self, x: Tensor, y: Tensor) -> Iterator[tuple[Tensor, Tensor, int]]:
        for start in range(0, len(x), self.batch):
            tile = rows_of(x, slice(start, start + self.batch), self.device)
            labels = y[start : start + self.batch].to(self.device)
            used = len(tile)
            missing = -used % TILE
            if missing:
                tile = torch.cat([tile, tile[-1:].expand(missing, *tile.shape[1:])])
                labels = torch.cat([labels, labels[-1:].expand(missing)])
            yield tile, labels, used
