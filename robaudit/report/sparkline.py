"""Numbers drawn as one line of text."""

from __future__ import annotations

import math
from collections.abc import Sequence

_BLOCKS = "▁▂▃▄▅▆▇█"
_NOTHING = "·"


def sparkline(values: Sequence[float | None]) -> str:
    """A block for each value, from the lowest to the highest; a dot for a gap.

    >>> sparkline([1.0, None, 2.0, 3.0])
    '▁·▅█'
    """
    known = [value for value in values if value is not None]
    low, high = min(known), max(known)
    span = high - low
    return "".join(
        _NOTHING if value is None else _BLOCKS[round(7 * (value - low) / span) if span else 0]
        for value in values
    )


def blocks(heights: Sequence[float]) -> str:
    """A block for each height from 0 to 1; a dot for none at all.

    >>> blocks([0.0, 0.01, 1.0])
    '·▁█'
    """
    return "".join(
        _BLOCKS[math.ceil(8 * height) - 1] if height > 0 else _NOTHING for height in heights
    )
