"""Random draws, determined by the seed and by what they are for.

Draws that belong to an example (the ``*_rows``: starting points, proposals of Square, patterns of
signs) are functions of ``(seed, stream, example index, restart or query)`` and made on the device
that needs them, with the same numbers on all (:mod:`robaudit.engine.philox`). They do not depend on
the batch, its order or the number of workers. Different streams have different keys unless 63-bit
hashes collide; within a stream no two (example, restart, position) share a counter.

Draws of weights, probes of curvature, samples of a data set and initial vectors come one after the
other from a :func:`generator` on the CPU.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from robaudit.engine import philox
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


class Rows:
    """Draws of one distribution: one of a given shape per example, ``(n, *shape)`` float32.

    Args:
        draw: of :mod:`robaudit.engine.philox`.

    >>> drawn = uniform_rows((2,), torch.tensor([7, 3]), 0, "example")
    >>> torch.equal(uniform_rows((2,), torch.tensor([3]), 0, "example"), drawn[1:])
    True
    """

    def __init__(self, draw: Callable[[Key, Tensor, Tensor | int, int], Tensor]) -> None:
        self._draw = draw

    def __call__(
        self,
        shape: Sequence[int],
        index: Tensor,
        seed: int,
        stream: str,
        restart: int | Tensor = 0,
        *,
        device: torch.device | None = None,
    ) -> Tensor:
        """The draws, the same on every device.

        Args:
            shape: shape of one example's draw.
            index: ``(n,)`` the examples' indices in their data set.
            seed: of the whole computation.
            stream: identifies the attack or probe.
            restart: number of the restart or query; a tensor broadcasts with ``index``, and the
                draws are then ``(*(index + restart).shape, *shape)``.
            device: of the draws; that of ``index`` unless given.
        """
        examples, count = index.to(device or index.device), math.prod(shape)
        rows = self._draw(key_of(seed, stream), examples, restart, count)
        return rows.reshape(*rows.shape[:-1], *shape)


uniform_rows = Rows(philox.uniform)
"""From U[0, 1), in multiples of ``2^-24``."""
normal_rows = Rows(philox.normal)
"""Standard normal."""
sign_rows = Rows(philox.signs)
"""Signs, -1.0 or 1.0."""
