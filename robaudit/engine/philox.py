"""Random numbers from counters: the same on every device, whatever else is drawn beside them.

Philox4x32-10 turns a counter of four 32-bit words and a key of two into four random words. Here a
draw is a row of words for an example and a query (or restart): block ``j`` of four words is that of
the counter ``(j, query, low half of the example, high half)``. Under one key no two of (example,
query, position) share a counter while queries are below ``2^32`` and positions below ``2^34``.

The arithmetic is exact on CPUs and GPUs, shapes follow from shapes, and nothing is read back to the
host: a CUDA graph may contain these draws, with example and query numbers in tensors that change
between its replays.

Source: Salmon, Moraes, Dror & Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

Key = tuple[int, int]
Four = tuple[Tensor, Tensor, Tensor, Tensor]

_MASK = 0xFFFFFFFF
# The multipliers less 2^32: their products with words have less than 63 bits, so that no int64
# overflows. The upper half of the true product is the upper half of this one plus the word.
_M0, _M1 = 0xD2511F53 - 2**32, 0xCD9E8D57 - 2**32
# What the key grows by after each round.
_W0, _W1 = 0x9E3779B9, 0xBB67AE85
_ROUNDS = 10
# Blocks computed together: on a CPU what stays in its cache, on a GPU what memory always has.
_PIECE, _PIECE_ON_GPU = 1 << 15, 1 << 22


def philox(counter: Four, key: Key) -> Four:
    """Philox4x32-10: four words for each counter.

    Args:
        counter: its four words, int64 tensors in ``[0, 2^32)`` that broadcast together.
        key: its two words.

    Returns:
        Four int64 tensors in ``[0, 2^32)``.

    >>> zero = torch.zeros(1, dtype=torch.long)
    >>> [hex(word) for word in philox((zero, zero, zero, zero), (0, 0))]
    ['0x6627e8d5', '0xe169c58d', '0xbc57ac4c', '0x9b00dbd8']
    """
    a, b, c, d = counter
    k0, k1 = key
    for _ in range(_ROUNDS):
        p, q = a * _M0, c * _M1
        # The upper halves of b and d never matter, so they are left as they are until the end.
        a, b, c, d = (
            (q >> 32).add(c).bitwise_xor(b).bitwise_xor_(k0).bitwise_and_(_MASK),
            q,
            (p >> 32).add(a).bitwise_xor(d).bitwise_xor_(k1).bitwise_and_(_MASK),
            p,
        )
        k0, k1 = (k0 + _W0) & _MASK, (k1 + _W1) & _MASK
    return a, b & _MASK, c, d & _MASK


def words(key: Key, example: Tensor, query: Tensor | int, count: int) -> Tensor:
    """Random words, ``(*shape, count)`` int64 in ``[0, 2^32)``.

    Args:
        key: of the stream.
        example: int64 numbers of the examples, on the device of the draw.
        query: numbers of the queries; ``shape`` is that of the two together, broadcast.
        count: words for each.

    >>> queries = torch.arange(5)
    >>> words((1, 2), torch.arange(3)[:, None], queries, 7).shape
    torch.Size([3, 5, 7])
    """
    return _drawn(key, example, query, count, torch.int64, lambda four: four)


def uniform(key: Key, example: Tensor, query: Tensor | int, count: int) -> Tensor:
    """Draws from U[0, 1): the upper 24 bits of each of :func:`words`, exact in float32."""
    return _drawn(key, example, query, count, torch.float32, _uniform)


def normal(key: Key, example: Tensor, query: Tensor | int, count: int) -> Tensor:
    """Standard normal draws, float32, by the Box-Muller transform of pairs of :func:`words`.

    Computed in float64, where logarithm and cosine differ between devices too little to show in
    float32 except for one draw in millions, which then differs in its last bit.
    """
    return _drawn(key, example, query, count, torch.float32, _normal)


def signs(key: Key, example: Tensor, query: Tensor | int, count: int) -> Tensor:
    """Draws of 1 or -1, float32: the bits of :func:`words`, the lowest first."""
    drawn = words(key, example, query, -(-count // 32))
    bits = drawn[..., None] >> torch.arange(32, device=drawn.device) & 1
    return 1 - 2 * bits.flatten(-2)[..., :count].float()


def _drawn(
    key: Key,
    example: Tensor,
    query: Tensor | int,
    count: int,
    dtype: torch.dtype,
    convert: Callable[[Four], Four],
) -> Tensor:
    device = example.device
    if isinstance(query, int):  # filled, as copies from the host have no place in a CUDA graph
        query = torch.full((), query, dtype=torch.int64, device=device)
    pair: list[Tensor] = torch.broadcast_tensors(example, query)  # type: ignore[no-untyped-call]
    shape, (examples, queries) = pair[0].shape, (number.reshape(-1, 1) for number in pair)
    blocks = -(-count // 4)
    rows = torch.empty(len(examples), blocks, 4, dtype=dtype, device=device)
    piece = _PIECE_ON_GPU if device.type == "cuda" else _PIECE
    wide = max(1, min(blocks, piece))
    high = max(1, piece // wide)
    for top in range(0, len(rows), high):
        own = examples[top : top + high]
        of_rows = queries[top : top + high] & _MASK, own & _MASK, own >> 32 & _MASK
        for left in range(0, blocks, wide):
            place = torch.arange(left, min(left + wide, blocks), device=device)[None]
            for lane, drawn in enumerate(convert(philox((place, *of_rows), key))):
                rows[top : top + high, left : left + wide, lane] = drawn
    return rows.flatten(1)[:, :count].reshape(*shape, count)


def _uniform(four: Four) -> Four:
    a, b, c, d = ((word >> 8).float().mul_(2**-24) for word in four)
    return a, b, c, d


def _normal(four: Four) -> Four:
    # In the middle of 2^32 equal intervals, never at 0.
    a, b, c, d = ((word.double() + 0.5).mul_(2**-32) for word in four)
    first, second = ((-2 * u.log()).sqrt_() for u in (a, c))
    b, d = 2 * math.pi * b, 2 * math.pi * d
    return first * b.cos(), first * b.sin(), second * d.cos(), second * d.sin()
