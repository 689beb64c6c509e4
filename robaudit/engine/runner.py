"""Forward and backward passes in tiles of a fixed number of images.

A convolution may use another kernel for another batch size, which changes its last bits. So every
pass runs on a multiple of :data:`TILE` images, the last tile padded with copies of its last row. On
a CPU it runs on exactly one tile at a time, which is as fast as larger batches and makes results
equal bit for bit for every batch size, order and set of other images.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor, nn

from robaudit.engine.captured import Captured
from robaudit.engine.device import device_of
from robaudit.engine.edges import edge_nudge
from robaudit.engine.freezing import frozen
from robaudit.engine.images import rows_of
from robaudit.engine.logits import Forward, logits_of
from robaudit.engine.precision import Precision, arithmetic
from robaudit.engine.several import devices_behind, on_devices, over_devices
from robaudit.errors import NotMeasuredError

TILE = 64
CUDA_BATCH = 1024
# Where passes are recorded they have one of a few sizes.
_RECORDED = (1024, 256, TILE)

PerImageObjective = Callable[[Tensor, Tensor], Tensor]
_Tile = tuple[Tensor, Tensor, int]
BatchSize = int | Literal["auto"]


class Runner:
    """Runs ``forward: (b, c, h, w) -> (b, k)`` over any number of images, and counts the passes.

    Logits come out in the images' precision; see :func:`~robaudit.engine.logits.logits_of`. Passes
    are in the arithmetic ``precision`` (:func:`robaudit.engine.arithmetic`) whatever the caller's.

    Attributes:
        door: what passes images to the network, and checks its logits.
        network: what is run, on a GPU in recorded passes; several runners may share it.
        devices: those that share the passes, the first one ``device``, which has all results;
            see :func:`robaudit.engine.spread`.
        batch: images per pass on a GPU, a multiple of ``TILE``; halved when memory runs out.
        forwards, backwards: images passed, padding not counted.
        backoffs: the batch sizes that did not fit.
        notes: why passes are not shared.
    """

    door: Callable[[Forward, Tensor], Tensor] = staticmethod(logits_of)

    def __init__(
        self,
        forward: Forward | Captured,
        device: torch.device,
        batch_size: BatchSize = "auto",
        *,
        precision: Precision = "fp32",
    ) -> None:
        if not isinstance(forward, Captured):
            forward = Captured(forward, device, precision, door=self.door)
        self.network = forward
        self.device = device
        self.devices = devices_behind(forward.forward, device)
        if device.type == "cpu":
            self.batch = TILE
        else:
            asked = CUDA_BATCH if batch_size == "auto" else batch_size
            self.batch = max(1, -(-asked // TILE)) * TILE
        self.backoffs: list[int] = []
        self.notes: list[str] = []
        self._nudge: float | None = None
        self.forwards = 0
        self.backwards = 0

    @property
    def forward(self) -> Forward:
        """The network that is run."""
        return self.network.forward

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

        def one(network: Captured, tile: Tensor, _: Tensor) -> tuple[Tensor]:
            return (network.logits(tile),)

        self.forwards += len(x) if used is None else used
        (logits,) = self._run(one, x, torch.zeros(len(x), dtype=torch.long, device=self.device))
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
        if self._nudge is None:
            self._nudge = edge_nudge(self.forward, x[:1].to(self.device))
        nudge = self._nudge

        def one(network: Captured, tile: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            if nudge:
                values_at = network.logits(tile)
                tile = tile + (tile.clamp(nudge, 1 - nudge) - tile)
            logits, pull = network.pair(tile)
            if pull is None:
                raise NotMeasuredError(
                    "the network's logits have no gradient in the image",
                    "Attack it without gradients: --attack square.",
                )
            with torch.enable_grad():
                leaf = (values_at if nudge else logits).detach().requires_grad_()
                values = objective(leaf, labels)
                (slopes,) = torch.autograd.grad(values.sum(), leaf)
            return values.detach(), pull(slopes), leaf.detach()

        passed = len(x) if used is None else used
        self.forwards += 2 * passed if nudge else passed
        self.backwards += passed
        values, gradient, logits = self._run(one, x, y)
        return values, gradient, logits

    @property
    def per_round(self) -> int:
        """Images of one round of passes: a pass on every device."""
        return self.batch * len(self.devices)

    def _run(
        self, one: Callable[[Captured, Tensor, Tensor], tuple[Tensor, ...]], x: Tensor, y: Tensor
    ) -> tuple[Tensor, ...]:
        def on_device(at: int, tile: _Tile) -> tuple[Tensor, ...]:
            images, labels, used = tile
            return tuple(part[:used] for part in one(networks[at], images, labels))

        networks = [self.network]
        while True:
            try:
                with arithmetic(self.network.precision):
                    networks = self.networks(x)
                    parts = list(over_devices(self.devices, self._tiles(x, y), on_device))
                if len(parts) == 1:
                    return parts[0]
                columns = zip(*parts, strict=True)
                return tuple(
                    torch.cat([part.to(self.device) for part in column]) for column in columns
                )
            except torch.cuda.OutOfMemoryError:
                if not self.back_off(networks):
                    raise

    def back_off(self, networks: Sequence[Captured] = ()) -> bool:
        """Halve the batch, as memory has run out; false if it is one tile already.

        What is recorded of the network, and of others, is dropped.
        """
        if self.batch <= TILE:
            return False
        self.backoffs.append(self.batch)
        self.batch = max(TILE, self.batch // 2 // TILE * TILE)
        for network in (self.network, *networks):
            network.drop()
        torch.cuda.empty_cache()
        return True

    def networks(self, x: Tensor) -> list[Captured]:
        """The network on every device, of which some images ``x`` show that they are the same."""
        if len(self.devices) == 1:
            return [self.network]
        few = rows_of(x, slice(0, TILE), self.device)
        found, refusal = on_devices(self.network, self.devices, few)
        if refusal:
            self.devices = self.devices[:1]
            self.notes.append(refusal)
        return found

    def _tiles(self, x: Tensor, y: Tensor) -> Iterator[_Tile]:
        """The images in tiles, each on its device, the tiles of a round of about equal sizes."""
        start, at, several = 0, 0, len(self.devices)
        while start < len(x):
            left = len(x) - start
            # On a CPU a tile is the same however many devices there are.
            size = self._size(left if self.device.type == "cpu" else -(-left // (several - at)))
            tile = rows_of(x, slice(start, start + size), self.devices[at])
            labels = y[start : start + size].to(self.devices[at])
            start += size
            at = (at + 1) % several
            used = len(tile)
            missing = size - used
            if missing:
                tile = torch.cat([tile, tile[-1:].expand(missing, *tile.shape[1:])])
                labels = torch.cat([labels, labels[-1:].expand(missing, *labels.shape[1:])])
            yield tile, labels, used

    def _size(self, left: int) -> int:
        """Images of the next pass, with padding, where so many are left."""
        if not self.network.records:
            return min(self.batch, -(-left // TILE) * TILE)
        sizes = [self.batch, *(size for size in _RECORDED if size < self.batch)]
        return next((size for size in sizes if 4 * left >= 3 * size), sizes[-1])
