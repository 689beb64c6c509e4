"""Examples on the network's device, and sums over them in pieces that fit its memory."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

# Images that a CPU differentiates twice together. A pass of 256 took 1.5 times as long per image on
# CNN-A, one of 8 twice as long.
_CPU = 64


class Pieces:
    """Examples, moved to the device once.

    A piece is all of them on a GPU, half as many whenever its memory does not suffice, and 64 on a
    CPU.

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

    def sum(self, term: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        """``sum term(images, labels)`` over the pieces, in their order.

        Raises:
            torch.cuda.OutOfMemoryError: two examples do not fit.
        """
        while True:
            try:
                return self._summed(term)
            except torch.cuda.OutOfMemoryError:
                if self._size <= 2:
                    raise
            # Not where the exception is alive: it holds the tensors that did not fit.
            self.refused.append(self._size)
            self._size = max(2, self._size // 2)
            torch.cuda.empty_cache()

    def _summed(self, term: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        total: Tensor | None = None
        pieces = zip(torch.split(self.x, self._size), torch.split(self.y, self._size), strict=True)
        for images, labels in pieces:
            found = term(images, labels)
            total = found if total is None else total.add_(found)
        assert total is not None
        return total
