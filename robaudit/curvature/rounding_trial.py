"""Backward passes in TF32 or bfloat16: what their rounding changes, and whether it matters."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from robaudit.curvature.chunk_sizes import evenly
from robaudit.engine.precision import Precision

# Images that are computed in float32, too. With fewer than four times as many they would cost more
# than the rest gains.
COMPARED = 32
_LEAST = 4 * COMPARED
# Largest error by rounding, in standard errors of the measurement; it widens an error bar by 2 %.
_ALLOWED = 0.2


@dataclass(frozen=True)
class TraceRounding:
    """What rounding changed on the images that were computed both ways.

    Rounding is relative, and few images may have most of the trace: so relative differences are
    taken over to the other images.

    Attributes:
        exact, coarse: ``(m, layers)`` float64 on the CPU, traces in float32 and rounded ones.
        images: number of all images; on the other ones traces are rounded.
        others: ``(images - m, layers)`` their traces, where they are known; else they are taken to
            be like the first.
    """

    exact: Tensor
    coarse: Tensor
    images: int
    others: Tensor | None = None

    def error(self, weights: Tensor | None = None) -> float:
        """Error by rounding of a weighted sum of the layers' mean traces.

        ``sqrt(mean(q)^2 S^2 + var(q) (S^2 / m + Q))``, ``q`` the relative differences of the sum on
        m images, ``S`` the sum of the rounded ones' values and ``Q`` that of their squares, over
        the number of images and its square.

        Args:
            weights: ``(layers,)``, by default one for each.
        """
        if weights is None:
            weights = torch.ones(self.exact.shape[1], dtype=torch.float64)
        t, d = self.exact @ weights, (self.coarse - self.exact) @ weights
        q = torch.where(d == 0, 0.0, d / t)
        m, n = len(q), self.images
        known = t if self.others is None else self.others @ weights
        repeated = (n - m) / len(known)
        S = float(known.sum()) * repeated / n
        Q = float(known.square().sum()) * repeated / n**2
        return math.sqrt(float(q.mean()) ** 2 * S**2 + float(q.var()) * (S**2 / m + Q))

    def layer_errors(self) -> list[float]:
        """The error by rounding of each layer's mean trace."""
        return [self.error(row) for row in torch.eye(self.exact.shape[1]).double()]


class RoundingTrial:
    """Computes the first images in several precisions, and decides for the others.

    A precision is used if its rounding, as :meth:`TraceRounding.error` estimates it, is below a
    fifth of the standard error that the mean over all images will have: for every layer and for
    their sum. It becomes a part of the error bars.

    Attributes:
        used: precision of the next images.
        rounding: what it changes; ``None`` in float32.
        note: why the fastest precision that was asked for is not used.

    Args:
        candidates: precisions to try, the fastest first and ``fp32`` last.
        images: number of all images.
    """

    def __init__(self, candidates: tuple[Precision, ...], images: int) -> None:
        self.used: Precision = "fp32"
        self.rounding: TraceRounding | None = None
        self.note: str | None = None
        self._images = images
        self._exact: list[Tensor] = []
        self._coarse: dict[Precision, list[Tensor]] = {p: [] for p in candidates if p != "fp32"}
        self._open = bool(self._coarse)
        if self._open and images < _LEAST:
            self._open = False
            self.note = (
                f"fp32, not {candidates[0]}: of {images} images {COMPARED} would be computed both "
                "ways to compare"
            )

    def slices(self, most: int) -> tuple[list[slice], list[slice]]:
        """The images that are compared, and the others, in slices of at most ``most`` rows."""
        first = COMPARED if self._open else 0
        others = [
            slice(part.start + first, part.stop + first)
            for part in evenly(self._images - first, most)
        ]
        return list(evenly(first, most)) if first else [], others

    def compare(self, exact: Tensor, rounded: Callable[[Precision], Tensor]) -> None:
        """Compare float32's traces of the next images, ``(images, layers)``, with rounded ones."""
        if not self._open:
            return
        self._exact.append(exact.cpu())
        for precision, parts in self._coarse.items():
            parts.append(rounded(precision).cpu())
        if sum(len(one) for one in self._exact) < COMPARED:
            return
        self._open = False
        reference = torch.cat(self._exact)
        refused = []
        for precision, parts in self._coarse.items():
            coarse = torch.cat(parts)
            rounding = TraceRounding(reference, coarse, self._images)
            worst = _worst_share(rounding)
            if worst < _ALLOWED:
                self.used, self.rounding = precision, rounding
                break
            refused.append(f"{precision}'s by {worst:.2g}")
        if refused:
            first = next(iter(self._coarse))
            self.note = (
                f"{self.used}, not {first}: rounding would change a trace by more than "
                f"{_ALLOWED:g} standard errors on the first {len(reference)} images, "
                + ", ".join(refused)
            )


def _worst_share(rounding: TraceRounding) -> float:
    """The largest error by rounding, of a layer or the sum, in standard errors of all images."""
    exact = rounding.exact
    off = torch.tensor([*rounding.layer_errors(), rounding.error()])
    errors = torch.cat([exact.std(0), exact.sum(1).std()[None]]) / rounding.images**0.5
    # A layer with zero trace has no error, and rounding does not change it.
    share = torch.where(off == 0, 0.0, off / errors)
    return float(share.nan_to_num(torch.inf, posinf=torch.inf).max())
