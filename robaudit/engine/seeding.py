"""Random draws per example.

Every draw is determined by ``(seed, stream, example index, restart)``, independent of batch size,
order, number of workers and device, because it is always made on the CPU.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor

from robaudit.engine.philox import Key


def seed_for(seed: int, *parts: int | str) -> int:
    """A 63-bit hash of the seed and of the parts that identify the draw."""
    text = "\x1f".join(str(part) for part in (seed, *parts)).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big") >> 1


def key_of(seed: int, stream: str) -> Key:
    """The Philox key of a stream of draws: the two halves of a 63-bit hash."""
    both = seed_for(seed, stream)
    return both & 0xFFFFFFFF, both >> 32


def generator(seed: int, *parts: int | str) -> torch.Generator:
    """A CPU generator for the draw that ``seed`` and ``parts`` identify."""
    return torch.Generator().manual_seed(seed_for(seed, *parts))


def uniform_rows(
    shape: Sequence[int], index: Tensor, seed: int, stream: str, restart: int = 0
) -> Tensor:
    """One draw from U[0, 1) of the given shape per example, ``(n, *shape)`` float32 on the CPU.

    Args:
        shape: shape of one example's draw.
        index: ``(n,)`` the examples' indices in their data set.
        seed: of the whole computation.
        stream: identifies the attack or probe.
        restart: number of the restart.
    """
    rows = torch.empty(len(index), *shape)
    for row, example in zip(rows, index.tolist(), strict=True):
        row.uniform_(generator=generator(seed, stream, example, restart))
    return rows
