"""Backward passes in bfloat16, where a comparison shows that they do not change the result."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from robaudit.engine import Precision

# Images that are computed in both precisions.
_BOTH = 16
# Largest change of a layer's trace by rounding, in standard errors of the whole measurement.
_ALLOWED = 0.1


class Bf16Trial:
    """Compares layer traces in both precisions on the first images, and decides for the others.

    bfloat16 is used if it changes every layer's mean by less than a tenth of the standard error
    that the mean over all images will have. On the first images the difference also contains errors
    that average out over more images, so the test is conservative.

    Attributes:
        dtype: for the next images; ``None`` for the network's own.
        note: why bfloat16 is not used although it was requested.
    """

    def __init__(self, precision: Precision, images: int) -> None:
        self.dtype: torch.dtype | None = None
        self.note: str | None = None
        self._images = images
        self._both: list[tuple[Tensor, Tensor]] = []
        self._open = precision == "bf16"
        if self._open and images <= _BOTH:
            self._open = False
            self.note = f"fp32, not bf16: {_BOTH} images would be computed both ways to compare"

    def compare(self, exact: Tensor, rounded: Callable[[torch.dtype], Tensor]) -> None:
        """Compare ``exact`` traces, ``(images, layers)``, with the same in bfloat16."""
        if not self._open:
            return
        self._both.append((exact, rounded(torch.bfloat16)))
        if sum(len(one) for one, _ in self._both) < _BOTH:
            return
        self._open = False
        exact, coarse = (torch.cat(parts) for parts in zip(*self._both, strict=True))
        error = exact.std(0) / self._images**0.5
        # A layer with zero trace has no error, and rounding does not change it.
        off = torch.where(coarse == exact, 0.0, (coarse - exact)).mean(0).abs() / error
        worst = float(off.nan_to_num(0.0, posinf=torch.inf).max())
        if bool(coarse.isfinite().all()) and worst < _ALLOWED:
            self.dtype = torch.bfloat16
        else:
            self.note = (
                f"fp32, not bf16: rounding would move a layer's trace by {worst:.2g} standard "
                f"errors on the first {len(exact)} images"
            )
