"""The Lanczos process, with full reorthogonalisation and error bounds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from robaudit.curvature.products import Product

Vector = NDArray[np.float64]


@dataclass(frozen=True)
class Tridiagonal:
    """The projection ``T = Q^T H Q`` of a symmetric operator on a Krylov space.

    Attributes:
        eigenvalues: Ritz values, ascending.
        weights: squared first components of T's eigenvectors: the quadrature weights of the start
            vector's spectral measure.
        residuals: ``|beta_m s_mi| = ||H u_i - lambda_i u_i||`` of each Ritz pair.
    """

    eigenvalues: Vector
    weights: Vector
    residuals: Vector


def lanczos(
    product: Product,
    start: Tensor,
    steps: int,
    *,
    largest: int = 0,
    smallest: int = 0,
    tolerance: float = 0.0,
) -> Tridiagonal:
    """Run until the asked extreme pairs have ``residual <= tolerance |eigenvalue|``, or ``steps``.

    Each new vector is orthogonalised twice against all before it ("twice is enough", Parlett), so
    that no eigenvalue comes back as a ghost; coefficients are kept in float64.

    Args:
        product: ``v -> H v`` for ``v`` of shape ``(P,)``.
        start: ``(P,)``, any length but zero.
        steps: at most this many products.

    Source: Golub & Van Loan, "Matrix computations", ch. 10.
    """
    steps = min(steps, len(start))
    basis = start.new_empty(steps, len(start))
    alphas: list[float] = []
    betas: list[float] = []
    vector = start / start.norm()
    for step in range(steps):
        basis[step] = vector
        residue = product(vector)
        alphas.append(_dot(residue, vector))
        known = basis[: step + 1]
        for _ in range(2):
            residue = residue - known.T @ (known @ residue)
        beta = float(residue.double().norm())
        betas.append(beta)
        scale = max(abs(a) for a in alphas)
        if beta <= 10 * torch.finfo(start.dtype).eps * scale:
            betas[-1] = 0.0  # the space is invariant: its Ritz values are eigenvalues
            break
        if tolerance and (step % 2 == 1 or step + 1 == steps):
            found = _solve(alphas, betas)
            wanted = [*range(min(smallest, step)), *range(step + 1 - min(largest, step), step + 1)]
            if step + 1 >= largest + smallest and all(
                found.residuals[i] <= tolerance * abs(found.eigenvalues[i]) for i in wanted
            ):
                return found
        vector = residue / beta
    return _solve(alphas, betas)


def _solve(alphas: list[float], betas: list[float]) -> Tridiagonal:
    T = np.diag(alphas) + np.diag(betas[:-1], 1) + np.diag(betas[:-1], -1)
    eigenvalues, vectors = np.linalg.eigh(T)
    return Tridiagonal(eigenvalues, vectors[0] ** 2, np.abs(betas[-1] * vectors[-1]))


def _dot(a: Tensor, b: Tensor) -> float:
    return float(a.double() @ b.double())
