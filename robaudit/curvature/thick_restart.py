"""Extreme eigenvalues in bounded memory: Lanczos with thick restarts and error bounds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from robaudit.curvature.lanczos import (
    Matrix,
    Tridiagonal,
    Vector,
    inner,
    orthogonalised,
    unit,
    vanishes,
)
from robaudit.curvature.products import Product

# Basis vectors in addition to the wanted ones; half of them are kept at a restart.
SPARE = 4
# Columns of the basis that are rotated together.
_BLOCK = 1 << 18


@dataclass(frozen=True)
class Extremes:
    """Ritz values at both ends of a symmetric operator's spectrum.

    Attributes:
        eigenvalues: all Ritz values of the last basis, ascending; the wanted ones are at the ends.
        residuals: ``||H u_i - lambda_i u_i||`` of each pair, by the Lanczos bound: an eigenvalue is
            within this distance, up to the rounding of the products.
        products: number of matrix-vector products.
        restarts: number of restarts.
        quadrature: of the start vector, from the products before the first restart.
    """

    eigenvalues: Vector
    residuals: Vector
    products: int
    restarts: int
    quadrature: Tridiagonal


def extremes(
    product: Product,
    start: Tensor,
    products: int,
    *,
    largest: int = 0,
    smallest: int = 0,
    tolerance: float = 0.0,
    held: int | None = None,
    at_least: int = 0,
) -> Extremes:
    """Extreme eigenvalues by Lanczos with thick restarts.

    It runs until the wanted pairs have ``residual <= tolerance |eigenvalue|``, or for ``products``
    products.

    When ``held`` basis vectors are full, the Ritz vectors nearest to the wanted ends are kept and
    the process continues from the last residue. Every new vector is orthogonalised twice against
    all that are held; coefficients are computed in float64.

    From one start vector an eigenvalue that is repeated *exactly* is found once. Where the Krylov
    space is exhausted before enough values are found, it continues from a random vector.

    Args:
        product: ``v -> H v`` for ``v`` of shape ``(P,)``.
        start: ``(P,)``, not zero.
        products: largest number of products.
        largest: number of largest eigenvalues wanted.
        smallest: number of smallest eigenvalues wanted.
        tolerance: relative tolerance of the residuals; zero to use all products.
        held: basis vectors in memory, at least ``largest + smallest + SPARE``.
        at_least: smallest number of products, even if the pairs converge earlier.

    Source: Wu & Simon, "Thick-restart Lanczos method for large symmetric eigenvalue problems",
    SIAM J. Matrix Anal. Appl. 22, 2000.

    >>> H = torch.linspace(-1, 9, 200, dtype=torch.float64)
    >>> ones = torch.ones_like(H)
    >>> found = extremes(lambda v: H * v, ones, 400, largest=1, tolerance=1e-6, held=8)
    >>> round(float(found.eigenvalues[-1]), 6), found.restarts > 0
    (9.0, True)
    """
    dim = len(start)
    most = min(products, dim) if held is None else min(held, products, dim)
    basis = start.new_empty(most, dim)
    S = np.zeros((most, most))
    vector = unit(start)
    size = spent = restarts = 0
    quadrature: Tridiagonal | None = None
    while True:
        basis[size] = vector
        residue = product(vector)
        spent += 1
        S[size, size] = inner(residue, vector)
        size += 1
        residue = orthogonalised(residue, basis[:size])
        beta = inner(residue, residue) ** 0.5
        scale = float(np.abs(S[:size, :size]).max())
        over = vanishes(beta, scale, start.dtype) or size == dim
        beta = 0.0 if over else beta
        last = spent == products or size == dim or (over and size >= largest + smallest)
        checked = tolerance > 0 and spent >= at_least and spent % max(1, size // 32) == 0
        if last or checked or size == most:
            values, vectors = np.linalg.eigh(S[:size, :size])
            residuals = np.abs(beta * vectors[-1])
            if last or (
                checked
                and size >= largest + smallest
                and _good(values, residuals, largest, smallest, tolerance)
            ):
                break
        vector = residue / beta if beta else _fresh(basis[:size])
        coupling = np.append(np.zeros(size - 1), beta)
        if size == most:
            if quadrature is None:
                quadrature = Tridiagonal(values, vectors[0] ** 2, residuals)
            kept = _kept(size, largest, smallest)
            _rotate(basis, vectors[:, kept])
            size, restarts = len(kept), restarts + 1
            S[:] = 0
            S[range(size), range(size)] = values[kept]
            coupling = beta * vectors[-1, kept]
        S[:size, size] = S[size, :size] = coupling
    if quadrature is None:
        quadrature = Tridiagonal(values, vectors[0] ** 2, residuals)
    return Extremes(values, residuals, spent, restarts, quadrature)


def _good(values: Vector, residuals: Vector, largest: int, smallest: int, tolerance: float) -> bool:
    wanted = [*range(smallest), *range(len(values) - largest, len(values))]
    return bool(np.all(residuals[wanted] <= tolerance * np.abs(values[wanted])))


def _kept(size: int, largest: int, smallest: int) -> list[int]:
    """Indices of the wanted Ritz pairs and of their neighbours, half of the spare ones."""
    extra = (size - largest - smallest) // 2
    below = 0 if not smallest else extra if not largest else extra // 2
    low, high = smallest + below, largest + extra - below
    return [*range(low), *range(size - high, size)]


def _rotate(basis: Tensor, vectors: Matrix) -> None:
    """Replace the first rows of the basis by the Ritz vectors, in place."""
    rotation = torch.tensor(vectors.T, dtype=basis.dtype, device=basis.device)
    for block in torch.split(basis, _BLOCK, dim=1):
        block[: len(rotation)] = rotation @ block


def _fresh(rows: Tensor) -> Tensor:
    """A random unit vector orthogonal to the rows."""
    draw = torch.randn(rows.shape[1], generator=torch.Generator().manual_seed(len(rows)))
    return unit(orthogonalised(draw.to(rows), rows))
