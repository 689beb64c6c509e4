"""Examples on the network's device, and sums over them in pieces that fit its memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from robaudit.engine.several import over_devices

# Images that a CPU differentiates twice together. A pass of 256 took 1.5 times as long per image on
# CNN-A, one of 8 twice as long.
_CPU = 64


class Pieces:
    """Examples, moved to the device once.

    A piece is all of them on a GPU, its share on several, half as many whenever memory does not
    suffice, and 64 on a CPU.

    Attributes:
        x, y: images ``(n, c, h, w)`` and labels ``(n,)`` on the device.
        refused: sizes of pieces that did not fit.

    Args:
        size: examples of a piece.
    """

    def __init__(self, x: Tensor, y: Tensor, device: torch.device, size: int | None = None) -> None:
        self.x, self.y = x.to(device), y.to(device)
        self.refused: list[int] = []
        self._size = size or (_CPU if device.type == "cpu" else len(x))

    @property
    def notes(self) -> tuple[str, ...]:
        """What did not fit, if anything."""
        if not self.refused:
            return ()
        return (
            f"the memory of the device did not hold the second derivatives of {self.refused[-1]} "
            f"examples: they are computed for {self._size} at a time",
        )

    def sum(
        self, devices: Sequence[torch.device], term: Callable[[int, Tensor, Tensor], Tensor]
    ) -> Tensor:
        """``sum term(at, images, labels)`` over the pieces, in their order.

        Args:
            devices: those that share the pieces; the sum is on the first, where the examples are.
            term: computed on the device at position ``at``.

        Raises:
            torch.cuda.OutOfMemoryError: two examples do not fit.
        """
        while True:
            try:
                return self._summed(devices, term)
            except torch.cuda.OutOfMemoryError:
                if self._size <= 2:
                    raise
            # Not where the exception is alive: it holds the tensors that did not fit.
            self.refused.append(self._size)
            self._size = max(2, self._size // 2)
            torch.cuda.empty_cache()

    def _summed(
        self, devices: Sequence[torch.device], term: Callable[[int, Tensor, Tensor], Tensor]
    ) -> Tensor:
        size = self._size
        if devices[0].type != "cpu":
            size = min(size, max(2, -(-len(self.x) // len(devices))))
        pieces = zip(torch.split(self.x, size), torch.split(self.y, size), strict=True)

        def on_device(at: int, piece: tuple[Tensor, Tensor]) -> Tensor:
            images, labels = piece
            return term(at, images.to(devices[at]), labels.to(devices[at]))

        total: Tensor | None = None
        for found in over_devices(devices, pieces, on_device):
            here = found.to(devices[0])
            total = here if total is None else total.add_(here)
        assert total is not None
        return total
