"""The Lanczos process, for the quadrature of a start vector's spectral measure."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from robaudit.curvature.products import Product

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]

# Numbers that are converted to float64 together.
_BLOCK = 1 << 22
# Numbers that are added in the vectors' own precision.
_SUMMED = 1024


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


def lanczos(product: Product, start: Tensor, steps: int, *, held: int | None = None) -> Tridiagonal:
    """``steps`` steps from ``start``, fewer only where the Krylov space is exhausted.

    Each new vector is orthogonalised twice against the last ``held`` vectors; coefficients are
    computed in float64. With all vectors held there are no spurious copies of eigenvalues and the
    residuals are bounds. With fewer, copies may appear, which share the weight of their eigenvalue:
    the quadrature remains accurate, the residuals are not bounds.

    Args:
        product: ``v -> H v`` for ``v`` of shape ``(P,)``.
        start: ``(P,)``, not zero.
        steps: largest number of steps.
        held: vectors in memory, at least two; all by default.

    Source: Golub & Van Loan, "Matrix computations", ch. 10; Greenbaum, "Behavior of slightly
    perturbed Lanczos and conjugate-gradient recurrences", Linear Algebra Appl. 113, 1989, for the
    quadrature with few vectors.
    """
    steps = min(steps, len(start))
    held = steps if held is None else min(held, steps)
    basis = start.new_empty(held, len(start))
    alphas: list[float] = []
    betas: list[float] = []
    vector = unit(start)
    for step in range(steps):
        basis[step % held] = vector
        residue = product(vector)
        alphas.append(inner(residue, vector))
        residue, _ = orthogonalised(residue, basis[: step + 1])
        betas.append(inner(residue, residue) ** 0.5)
        if vanishes(betas[-1], max(abs(a) for a in alphas), start.dtype):
            betas[-1] = 0.0  # the space is invariant: its Ritz values are eigenvalues
            break
        vector = residue / betas[-1]
    T = np.diag(alphas) + np.diag(betas[:-1], 1) + np.diag(betas[:-1], -1)
    eigenvalues, vectors = np.linalg.eigh(T)
    return Tridiagonal(eigenvalues, vectors[0] ** 2, np.abs(betas[-1] * vectors[-1]))


def orthogonalised(vector: Tensor, rows: Tensor) -> tuple[Tensor, Vector]:
    """``vector`` less its projection on orthonormal ``rows``, and its coordinates along them.

    The projection is taken twice ("twice is enough", Parlett). Products are summed over 1024
    entries in the vectors' precision and from there in float64: a float32 sum over 1e5 entries has
    errors of up to 1e-5, which would limit orthogonality and eigenvalues.
    """
    count, dim = rows.shape
    whole = dim - dim % _SUMMED
    blocks = rows[:, :whole].view(count, -1, _SUMMED).transpose(0, 1) if whole else None
    total = np.zeros(count)
    for _ in range(2):
        along = rows[:, whole:].double() @ vector[whole:].double()
        if blocks is not None:
            parts = torch.bmm(blocks, vector[:whole].view(-1, _SUMMED, 1))
            along += parts.squeeze(2).sum(0, dtype=torch.float64)
        vector = torch.addmv(vector, rows.T, along.to(vector.dtype), alpha=-1)
        total += along.cpu().numpy()
    return vector, total


def unit(vector: Tensor) -> Tensor:
    """``vector / ||vector||``, with the norm in float64."""
    return torch.div(vector, inner(vector, vector) ** 0.5)


def inner(a: Tensor, b: Tensor) -> float:
    """``<a, b>`` in float64, without float64 copies of whole vectors."""
    blocks = zip(torch.split(a, _BLOCK), torch.split(b, _BLOCK), strict=True)
    return float(sum(left.double() @ right.double() for left, right in blocks))


def vanishes(beta: float, scale: float, dtype: torch.dtype) -> bool:
    """Whether a residue of norm ``beta`` is rounding, for an operator of norm ``scale``."""
    return beta <= 10 * torch.finfo(dtype).eps * scale
