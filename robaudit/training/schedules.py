"""Learning rates, one per epoch."""

from __future__ import annotations

import math
from collections.abc import Sequence


def constant(peak: float, epochs: int, *, warmup: int = 0) -> list[float]:
    """Linear warm-up to ``peak``, then constant.

    >>> constant(0.5, 3, warmup=1)
    [0.25, 0.5, 0.5]
    """
    return _warmup(peak, warmup) + [peak] * (epochs - warmup)


def piecewise(
    peak: float, epochs: int, milestones: Sequence[int], factor: float = 0.1, *, warmup: int = 0
) -> list[float]:
    """``peak``, times ``factor`` after each milestone's epoch.

    >>> piecewise(1.0, 4, [1, 3], 0.5)
    [1.0, 0.5, 0.5, 0.25]

    Source: L. Rice et al., "Overfitting in adversarially robust deep learning", ICML 2020 (0.1,
    a tenth after epochs 100 and 150 of 200).
    """
    return piecewise_zoom(peak, epochs, milestones, factor, zoom=1, warmup=warmup)


def piecewise_zoom(
    peak: float,
    epochs: int,
    milestones: Sequence[int],
    factor: float = 0.1,
    zoom: int = 10,
    *,
    warmup: int = 0,
) -> list[float]:
    """As :func:`piecewise`, each fall spread evenly over the ``zoom`` epochs from its milestone on.

    In those epochs every rate is ``factor^(1 / zoom)`` of the one before.

    >>> [round(rate, 4) for rate in piecewise_zoom(1.0, 5, [1], 0.01, zoom=2)]
    [1.0, 0.1, 0.01, 0.01, 0.01]

    Source: "Piecewisezoom" of the WCI paper's Table 1, after L. Rice et al., ICML 2020. Neither
    defines it, and the latter's public code has the name alone: this form is ours.
    """

    def fallen(t: int) -> float:
        return sum(min(max((t - m + 1) / zoom, 0.0), 1.0) for m in milestones)

    return _warmup(peak, warmup) + [peak * factor ** fallen(t) for t in range(warmup, epochs)]


def cosine(peak: float, epochs: int, *, warmup: int = 0, floor: float = 0.0) -> list[float]:
    """Linear warm-up to ``peak``, then half a cosine down to about ``floor``.

    >>> [round(rate, 3) for rate in cosine(0.1, 4)]
    [0.1, 0.085, 0.05, 0.015]
    """
    falling = epochs - warmup
    return _warmup(peak, warmup) + [
        floor + (peak - floor) * (1 + math.cos(math.pi * t / falling)) / 2 for t in range(falling)
    ]


def cyclic(peak: float, epochs: int) -> list[float]:
    """Linear rise to ``peak`` over two fifths, then linear fall; values at the middle of epochs.

    >>> [round(rate, 2) for rate in cyclic(1.0, 5)]
    [0.25, 0.75, 0.83, 0.5, 0.17]

    Source: E. Wong et al., "Fast is better than free", ICLR 2020, which changes the rate at every
    step.
    """
    top = 0.4 * epochs
    middles = [t + 0.5 for t in range(epochs)]
    return [peak * (t / top if t <= top else (epochs - t) / (epochs - top)) for t in middles]


def _warmup(peak: float, epochs: int) -> list[float]:
    return [peak * (epoch + 1) / (epochs + 1) for epoch in range(epochs)]
