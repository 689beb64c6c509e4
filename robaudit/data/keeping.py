"""Storage of the selected images, and the hash that identifies them."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from robaudit.data.source import Source
from robaudit.engine.images import PLAIN, StoredImages, as_float, tiles
from robaudit.types import Progress

# Decoded images up to this size are kept; beyond it, images are decoded when they are needed.
_DECODED = 1 << 30
_TOGETHER = 256


def kept(source: Source, positions: Sequence[int], progress: Progress | None) -> Tensor:
    """Images of a source: few as float32, many as they are stored.

    Decoded files are kept as bytes up to a gigabyte.
    """
    shape = (len(positions), *source.shape)
    if source.decoded and math.prod(shape) > _DECODED:
        return StoredImages(shape, lambda rows: source.images([positions[i] for i in rows]))
    raw = _decoded(source, positions, progress) if source.decoded else source.images(positions)
    if 4 * raw.numel() <= PLAIN:
        return as_float(raw)
    return StoredImages(shape, lambda rows: raw[rows])


def content_hash(x: Tensor, y: Tensor, progress: Progress | None = None) -> str:
    """SHA-256 over dtype, shape and bytes of the images as float32, then of the labels.

    ``progress`` is called for images that are read for it.
    """
    digest = hashlib.sha256()
    stored = isinstance(x, StoredImages)
    digest.update(f"{torch.float32} {tuple(x.shape)}\n".encode())
    for part in tiles(x):
        digest.update(x[part].contiguous().numpy().data)
        if stored and progress is not None:
            progress(part.stop, len(x))
    digest.update(f"{y.dtype} {tuple(y.shape)}\n".encode())
    digest.update(y.contiguous().numpy().data)
    return digest.hexdigest()


def _decoded(source: Source, positions: Sequence[int], progress: Progress | None) -> Tensor:
    raw = torch.empty(len(positions), *source.shape, dtype=torch.uint8)
    for start in range(0, len(raw), _TOGETHER):
        some = positions[start : start + _TOGETHER]
        raw[start : start + len(some)] = source.images(some)
        if progress is not None:
            progress(start + len(some), len(raw))
    return raw
