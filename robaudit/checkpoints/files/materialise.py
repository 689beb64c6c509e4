"""Reads tensors from a file by their descriptions. Nothing is unpickled."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from robaudit.checkpoints.files.display import shown
from robaudit.checkpoints.files.values import Span, StoredTensor
from robaudit.checkpoints.files.zip_records import damaged

_CHUNK = 1 << 24


def materialise(elements: Mapping[str, StoredTensor]) -> dict[str, Tensor]:
    """Read tensors from their files, on the CPU, with the strides they were saved with.

    A storage of several tensors is read once, and they share it.

    Raises:
        CheckpointError: a storage is cut off or its checksum is wrong.
    """
    storages: dict[Span, Tensor] = {}
    typed: dict[tuple[Span, str], Tensor] = {}
    state = {}
    for name, tensor in elements.items():
        if tensor.span is None:
            raise ValueError(f"{name} has no place in a file")
        if tensor.span not in storages:
            storages[tensor.span] = _read(tensor.span)
        key = (tensor.span, tensor.dtype)
        if key not in typed:
            typed[key] = _typed(storages[tensor.span], getattr(torch, tensor.dtype))
        state[name] = torch.as_strided(typed[key], tensor.shape, tensor.stride, tensor.offset)
    return state


def _read(span: Span) -> Tensor:
    storage = torch.empty(span.nbytes, dtype=torch.uint8)
    place = storage.numpy().data
    checksum, done = 0, 0
    with Path(span.file).open("rb") as file:
        file.seek(span.start)
        while done < span.nbytes:
            piece = place[done : done + _CHUNK]
            count = file.readinto(piece)
            if not count:
                raise damaged(shown(span.file, 200), "the elements of its weights are missing")
            if span.crc is not None:
                checksum = zlib.crc32(piece[:count], checksum)
            done += count
    if span.crc is not None and checksum != span.crc:
        raise damaged(shown(span.file, 200), "the checksum of its weights is wrong")
    return storage


def _typed(storage: Tensor, dtype: torch.dtype) -> Tensor:
    whole = storage[: storage.numel() // dtype.itemsize * dtype.itemsize]
    # A byte that is neither 0 nor 1 is no boolean that torch could compute with.
    return whole != 0 if dtype is torch.bool else whole.view(dtype)
