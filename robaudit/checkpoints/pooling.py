"""Which checkpoints of a command are used to identify all of them. No torch."""

from __future__ import annotations

from collections.abc import Sequence

_POOLED = 4


def few(sources: Sequence[str]) -> tuple[str, ...]:
    """At most four, evenly over all, the first and the last among them.

    >>> few("abcdefg")
    ('a', 'c', 'e', 'g')
    """
    if len(sources) <= _POOLED:
        return tuple(sources)
    last = len(sources) - 1
    return tuple(sources[round(k * last / (_POOLED - 1))] for k in range(_POOLED))
