"""Extreme eigenvalues in bounded memory: Lanczos with thick restarts and error bounds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from robaudit.curvature.krylov import Space
from robaudit.curvature.lanczos import Matrix, Tridiagonal, Vector
from robaudit.curvature.products import Product

# Basis vectors in addition to the wanted ones; half of them are kept at a restart.
SPARE = 4


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

    It runs until the wanted pairs have ``residual <= tolerance |eigenvalue|``, the rounding of the
    products counted, or for ``products`` products.

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

    >>> import torch
    >>> H = torch.linspace(-1, 9, 200, dtype=torch.float64)
    >>> ones = torch.ones_like(H)
    >>> found = extremes(lambda v: H * v, ones, 400, largest=1, tolerance=1e-6, held=8)
    >>> round(float(found.eigenvalues[-1]), 6), found.restarts > 0
    (9.0, True)
    """
    dim = len(start)
    most = min(products, dim) if held is None else min(held, products, dim)
    space = Space(start, most + 1)
    return advanced(
        space,
        product,
        products,
        largest=largest,
        smallest=smallest,
        tolerance=tolerance,
        at_least=at_least,
    )


def advanced(
    space: Space,
    product: Product,
    products: int,
    *,
    largest: int = 0,
    smallest: int = 0,
    tolerance: float = 0.0,
    at_least: int = 0,
) -> Extremes:
    """As :func:`extremes`, from a space that is changed in place.

    The first product is spent only if the wanted pairs of the space have not converged. Of a space
    that leads in several directions, each product goes along the one that the wanted pairs'
    relative residuals have most of.
    """
    dim = space.dim
    spent = restarts = 0
    quadrature: Tridiagonal | None = None
    while True:
        size = space.size
        last = spent == products or size == dim
        last = last or (space.width == 0 and size >= largest + smallest)
        if space.width == 0 and not last:
            space.branch()
        checked = tolerance > 0 and spent >= at_least and spent % max(1, size // 32) == 0
        toward = np.ones(1)
        if size and (last or checked or space.full or space.width > 1):
            values, coordinates, residuals = space.ritz()
            enough = size >= largest + smallest
            wanted = wanted_of(size, largest, smallest)
            good = within(values[wanted], residuals[wanted], space.rounding, tolerance)
            if last or (checked and enough and good):
                break
            if space.width > 1:
                toward = _lagging(space, coordinates[:, wanted], values[wanted])
        if space.full:
            if quadrature is None:
                quadrature = Tridiagonal(values, coordinates[0] ** 2, residuals)
            space.restart(_kept(size, largest, smallest))
            restarts += 1
        space.expand(product, toward)
        spent += 1
    if quadrature is None:
        quadrature = Tridiagonal(values, coordinates[0] ** 2, residuals)
    return Extremes(values, residuals, spent, restarts, quadrature)


def within(values: Vector, residuals: Vector, rounding: float, tolerance: float) -> bool:
    """Whether residuals are within the tolerance, with rounding where that can be."""
    allowed = tolerance * np.abs(values)
    return bool(np.all(residuals <= np.maximum(allowed - rounding, np.minimum(allowed, rounding))))


def wanted_of(size: int, largest: int, smallest: int) -> list[int]:
    """Indices of the wanted ones among ``size`` ascending values, as far as there are so many."""
    below = min(smallest, size)
    return [*range(below), *range(max(below, size - largest), size)]


def _lagging(space: Space, coordinates: Matrix, values: Vector) -> Vector:
    """The unit vector, in ``F``, along which the residuals beside their eigenvalues are largest."""
    sizes = np.maximum(np.abs(values), np.finfo(np.float64).tiny)
    left: Matrix = np.linalg.svd(space.C @ coordinates / sizes)[0]
    return left[:, 0]


def _kept(size: int, largest: int, smallest: int) -> list[int]:
    """Indices of the wanted Ritz pairs and of their neighbours, half of the spare ones."""
    return nearest(size, largest, smallest, largest + smallest + (size - largest - smallest) // 2)


def nearest(size: int, largest: int, smallest: int, count: int) -> list[int]:
    """Indices of ``count`` Ritz pairs, the wanted ones and their neighbours at both ends."""
    extra = min(count, size) - largest - smallest
    if extra < 0:
        return wanted_of(size, largest, smallest)
    below = 0 if not smallest else extra if not largest else extra // 2
    low, high = smallest + below, largest + extra - below
    return [*range(low), *range(size - high, size)]
