"""Where a tensor's elements are in which file. No torch, and nothing is read."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from robaudit.checkpoints.files.values import ITEM_SIZES, SymbolicTensor


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of a file: a storage's bytes. ``crc`` is its CRC-32, where the file has one."""

    file: Path
    start: int
    nbytes: int
    crc: int | None = None


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A tensor in a file; ``offset`` and ``stride`` count elements of ``dtype`` in its ``span``.

    ``span`` is ``None`` where the elements will not be read, because the file is refused.
    """

    shape: tuple[int, ...]
    dtype: str
    offset: int
    stride: tuple[int, ...]
    span: Span | None

    @property
    def numel(self) -> int:
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of its own elements, which may be fewer than its span's."""
        return self.numel * ITEM_SIZES[self.dtype]


def stored(tensor: SymbolicTensor, span: Span | None) -> StoredTensor:
    """A tensor that a pickle describes, with the place of its storage."""
    return StoredTensor(tensor.shape, tensor.dtype, tensor.offset, tensor.stride, span)


def contiguous(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The strides of a tensor whose elements lie in order, without gaps.

    >>> contiguous((4, 3, 2))
    (6, 2, 1)
    """
    return tuple(math.prod(shape[place + 1 :]) for place in range(len(shape)))
