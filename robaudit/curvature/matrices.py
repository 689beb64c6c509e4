"""One curvature matrix of given examples: its products, exact and rounded, checked and counted."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from robaudit.curvature.krylov import Space
from robaudit.curvature.losses import require_finite
from robaudit.curvature.pieces import Pieces
from robaudit.curvature.products import (
    Product,
    gauss_newton_product,
    hessian_product,
    relative_scale,
)
from robaudit.curvature.selection import Coordinates
from robaudit.curvature.shared_runs import Rounding, rounding_of
from robaudit.engine import device_of
from robaudit.engine.precision import Arithmetic, Precision, candidates
from robaudit.types import Operator, Progress

# Default budget for vectors, in bytes.
MEMORY = 4 << 30
# The part of a GPU's free memory that is taken for them if that is more.
_FREE = 4


def default_memory(device: torch.device) -> int:
    """Bytes for vectors on a device."""
    if device.type != "cuda":
        return MEMORY
    return max(MEMORY, torch.cuda.mem_get_info(device)[0] // _FREE)


class Matrices:
    """A matrix over the chosen entries of a frozen network's parameters.

    Attributes:
        spent: products with all examples so far.

    Args:
        model, x, y: as in :func:`robaudit.curvature.spectrum`.
        chosen: the entries that the matrix acts on.
        operator: which matrix.
        relative: of ``D H D``.
        progress: called with the products done and ``budget``.
    """

    def __init__(
        self,
        model: nn.Module,
        x: Tensor,
        y: Tensor,
        chosen: Coordinates,
        *,
        operator: Operator,
        relative: bool,
        budget: int = 1,
        progress: Progress | None = None,
    ) -> None:
        self.spent = 0
        self._model, self._x, self._y = model, x, y
        self._chosen, self._operator = chosen, operator
        self._budget, self._progress = budget, progress
        self._pieces = Pieces(x, y, device_of(model))
        self._refusal: str | None = None
        self.scale = relative_scale(model, chosen.layers) if relative else None

    @property
    def notes(self) -> tuple[str, ...]:
        """What memory or rounding did not allow."""
        refused = () if self._refusal is None else (self._refusal,)
        return (*refused, *self._pieces.notes)

    def product(self, precision: Precision) -> Product:
        """``v -> H v``, counted.

        Raises:
            NotMeasuredError: from the product, where it is not finite.
        """
        matrix = self._matrix(self._pieces, precision)

        def counted(v: Tensor) -> Tensor:
            self.spent += 1
            out = require_finite(matrix(v), self._model, self._x, self._y)
            if self._progress is not None:
                self._progress(min(self.spent, self._budget), self._budget)
            return out

        return counted

    def searching(self, asked: Arithmetic, v: Tensor) -> tuple[Precision, Rounding]:
        """The precision to search in, and how its product with ``v`` differs from float32's.

        TF32 where the device has it and it was not ruled out, unless it rounds too much: the second
        derivative has no digits left in bfloat16.
        """
        device = self._pieces.x.device
        if asked == "float64" or "tf32" not in candidates(asked, device):
            return "fp32", Rounding()
        found = rounding_of(self.product("fp32"), self.product("tf32"), v)
        self._refusal = found.refusal
        return ("tf32", found) if found.refusal is None else ("fp32", Rounding())

    def halves(self, space: Space, value: float) -> tuple[float, float] | None:
        """``<u, H u>`` on each half of the examples, ``u`` the vector of the largest Ritz value.

        Args:
            space: that has it.
            value: that Ritz value, the mean over all examples.
        """
        n, first = len(self._x), len(self._x) // 2
        if first < 2:
            return None
        _, coordinates, _ = space.ritz()
        (u,) = space.vectors(coordinates[:, -1:])
        part = Pieces(self._pieces.x[:first], self._pieces.y[:first], u.device)
        own = float(self._matrix(part, "fp32")(u).double() @ u.double())
        return own, (n * value - first * own) / (n - first)

    def _matrix(self, pieces: Pieces, precision: Precision) -> Product:
        layers, scale = self._chosen.layers, self.scale
        if self._operator == "hessian":
            matrix = hessian_product(
                self._model, pieces, pieces.y, layers=layers, precision=precision
            )
        else:
            matrix = gauss_newton_product(self._model, pieces, layers=layers, precision=precision)
        if scale is None:
            return self._chosen.restricted(matrix)
        return self._chosen.restricted(lambda v: scale * matrix(scale * v))
