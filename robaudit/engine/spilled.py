"""Storage for adversarial images: in memory, or on disk where they are many."""

from __future__ import annotations

import contextlib
import math
import tempfile
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Self

import torch
from torch import Tensor

from robaudit.engine.images import LARGE, StoredImages, positions, rows_of, tiles
from robaudit.errors import NotMeasuredError


class SpilledImages(StoredImages):
    """Images in a temporary file, written row by row and deleted when the process ends.

    Rows that have not been written are those of ``base``, or zero.

    Raises:
        NotMeasuredError: the disk is full.
    """

    _under: Tensor | None
    _written: Tensor
    _file: Any

    def __new__(cls, shape: Sequence[int], base: Tensor | None = None) -> Self:
        made: Self = super().__new__(cls, shape)
        made._under, made._written = base, torch.zeros(shape[0], dtype=torch.bool)
        with _disk(shape):
            made._file = tempfile.TemporaryFile(prefix="robaudit-")  # noqa: SIM115
        return made

    def __setitem__(self, rows: Any, images: Any) -> None:
        at = positions(len(self), rows).reshape(-1)
        if isinstance(images, StoredImages):
            for part in tiles(images):
                self[at[part]] = images.taken(part)
            return
        values = images.detach().cpu().expand(len(at), *self.shape[1:]).contiguous().numpy()
        with _disk(self.shape):
            for start, stop in _runs(at):
                self._file.seek(int(at[start]) * self.image_bytes)
                self._file.write(values[start:stop].data)
        self._written[at] = True

    def read(self, rows: Tensor) -> Tensor:
        out = torch.zeros(len(rows), *self.shape[1:])
        there = self._written[rows]
        if self._under is not None and not bool(there.all()):
            out[~there] = rows_of(self._under, rows[~there], out.device)
        to = torch.nonzero(there)[:, 0]
        for start, stop in _runs(to, rows[to]):
            self._file.seek(int(rows[to[start]]) * self.image_bytes)
            self._file.readinto(out[int(to[start]) : int(to[stop - 1]) + 1].numpy().data)
        return out


def copied(x: Tensor) -> Tensor:
    """A copy of the images ``x`` on the CPU, to be overwritten row by row."""
    return SpilledImages(x.shape, x) if _large(x) else x.cpu().clone()


def computed(x: Tensor, rows: Callable[[Tensor], Tensor]) -> Tensor:
    """Images of the shape of ``x`` that ``rows`` computes from positions ``(m,)``.

    Few images are computed immediately, many each time they are read.
    """
    return StoredImages(x.shape, rows) if _large(x) else rows(torch.arange(len(x)))


def _large(x: Tensor) -> bool:
    """Whether images of this kind and number are stored on disk; plain tensors are not."""
    return isinstance(x, StoredImages) and x.image_bytes * len(x) > LARGE


def _runs(*counting: Tensor) -> Iterator[tuple[int, int]]:
    """Ranges ``(start, stop)`` in which all sequences increase by one."""
    n = len(counting[0])
    if n == 0:
        return
    breaks = torch.zeros(n - 1, dtype=torch.bool)
    for numbers in counting:
        breaks |= numbers.diff() != 1
    ends = [*(torch.nonzero(breaks)[:, 0] + 1).tolist(), n]
    yield from zip([0, *ends[:-1]], ends, strict=True)


@contextlib.contextmanager
def _disk(shape: Sequence[int]) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise NotMeasuredError(
            f"no room for {4 * math.prod(shape) / 2**30:.1f} GiB of adversarial images in "
            f"{tempfile.gettempdir()}: {error.strerror or error}",
            "Free space, set TMPDIR to another folder, or give a smaller --n.",
        ) from error
