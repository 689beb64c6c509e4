"""Spaces on which a symmetric operator's projection and its remainder are known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from robaudit.curvature.lanczos import Matrix, Vector, inner, orthogonalised, unit, vanishes
from robaudit.curvature.products import Product

# Columns that are rotated together.
_BLOCK = 1 << 18
# Least part of a vector outside a space for which it is added to it: the rounding of products is
# multiplied by its reciprocal.
_OUTSIDE = 0.3
# Rounding of a product, in units in the last place of the largest eigenvalue.
_ROUNDING = 16


@dataclass(frozen=True)
class Pairs:
    """Ritz pairs of a space of width one: ``H u_i = values_i u_i + sizes_i direction``.

    Attributes:
        rows: ``(k, P)`` the Ritz vectors ``u_i``.
        values, sizes: ``(k,)``.
        direction: ``(P,)`` a unit vector.
    """

    rows: Tensor
    values: Vector
    sizes: Vector
    direction: Tensor


class Space:
    """Orthonormal vectors ``Q`` with ``H Q = Q T + F C``, ``F`` orthonormal and orthogonal to them.

    With one column in ``F`` this is the Lanczos process; with several it is a block Krylov-Schur
    decomposition, which grows by one product at a time.

    Attributes:
        T: ``(size, size)`` the projection ``Q^T H Q``, float64.
        C: ``(width, size)`` float64: of a Ritz pair ``(t, Q s)`` the residual is ``||C s||``.
        growth: factor by which the rounding of a product may have grown in ``T`` and ``C``.

    Args:
        start: ``(P,)``, not zero.
        most: vectors that there is room for, those of ``F`` included.

    Source: Stewart, "A Krylov-Schur algorithm for large eigenproblems", SIAM J. Matrix Anal. Appl.
    23, 2002; Zhou & Saad, "Block Krylov-Schur method for large symmetric eigenvalue problems",
    Numer. Algorithms 47, 2008.
    """

    def __init__(self, start: Tensor, most: int) -> None:
        self._rows = start.new_empty(most, len(start))
        self._rows[0] = unit(start)
        self.T: Matrix = np.zeros((0, 0))
        self.C: Matrix = np.zeros((1, 0))
        self.growth = 1.0

    @classmethod
    def of(cls, vectors: Tensor, product: Product, most: int) -> Space:
        """The span of ``(k, P)`` orthonormal vectors, with a product for each."""
        found = cls(vectors[0], most)
        size = len(vectors)
        for at, vector in enumerate(vectors[1:], start=1):
            found._rows[at] = unit(orthogonalised(vector, found._rows[:at])[0])
        images = torch.stack([product(row) for row in found._rows[:size]])
        found.T, found.C = np.zeros((size, size)), np.zeros((0, size))
        found._lead(images, np.eye(size))
        return found

    @property
    def dim(self) -> int:
        """Length of the vectors."""
        return self._rows.shape[1]

    @property
    def size(self) -> int:
        """Number of vectors in ``Q``."""
        return len(self.T)

    @property
    def width(self) -> int:
        """Number of vectors in ``F``."""
        return len(self.C)

    @property
    def full(self) -> bool:
        """Whether there is no room for another vector."""
        return self.size + self.width >= len(self._rows)

    def expand(self, product: Product, toward: Vector) -> None:
        """Move the unit vector ``F toward`` to ``Q``, with one product."""
        size, width = self.size, self.width
        if width > 1:
            turn = _beginning_with(toward)
            _rotate(self._rows[size : size + width], turn)
            self.C = turn @ self.C
        vector = self._rows[size]
        image = product(vector)
        residue, along = orthogonalised(image, self._rows[: size + width])
        coupling = self.C[:1]
        self.T = np.block([[self.T, coupling.T], [coupling, along[size : size + 1, None]]])
        self.C = np.hstack([self.C[1:], along[size + 1 :, None]])
        beta = inner(residue, residue) ** 0.5
        scale = float(np.abs(self.T).max())
        if not vanishes(beta, scale, residue.dtype) and size + width < len(vector):
            self._rows[size + width] = residue / beta
            self.C = np.vstack([self.C, np.append(np.zeros(size), beta)])

    def branch(self) -> None:
        """Give ``F`` a random vector, where it has none left."""
        rows = self._rows[: self.size]
        draw = torch.randn(rows.shape[1], generator=torch.Generator().manual_seed(len(rows)))
        self._rows[self.size] = unit(orthogonalised(draw.to(rows), rows)[0])
        self.C = np.zeros((1, self.size))

    @property
    def rounding(self) -> float:
        """What the rounding of products may add to a residual."""
        size = float(np.abs(np.linalg.eigvalsh(self.T)).max())
        return _ROUNDING * float(torch.finfo(self._rows.dtype).eps) * self.growth * size

    def ritz(self) -> tuple[Vector, Matrix, Vector]:
        """Ritz values, ascending, their coordinates in ``Q``, and their residuals."""
        values, coordinates = np.linalg.eigh(self.T)
        return values, coordinates, np.linalg.norm(self.C @ coordinates, axis=0)

    def vectors(self, coordinates: Matrix) -> Tensor:
        """``(k, P)`` the vectors of coordinates ``(size, k)``."""
        turn = torch.tensor(coordinates.T, dtype=self._rows.dtype, device=self._rows.device)
        return turn @ self._rows[: self.size]

    def pairs(self, kept: Sequence[int]) -> Pairs:
        """Some Ritz pairs of a space of width one."""
        values, coordinates, _ = self.ritz()
        chosen = coordinates[:, kept]
        rows = self.vectors(chosen)
        if not self.width:  # they are eigenvectors
            return Pairs(rows, values[kept], np.zeros(len(rows)), torch.zeros_like(rows[0]))
        return Pairs(rows, values[kept], self.C[0] @ chosen, self._rows[self.size].clone())

    def restart(self, kept: Sequence[int]) -> None:
        """Replace ``Q`` by some of its Ritz vectors."""
        values, coordinates, _ = self.ritz()
        size, width = self.size, self.width
        _rotate(self._rows[:size], coordinates[:, kept].T)
        self._rows[len(kept) : len(kept) + width] = self._rows[size : size + width].clone()
        self.T = np.diag(values[kept])
        self.C = self.C @ coordinates[:, kept]

    def join(self, others: Sequence[Pairs]) -> None:
        """Add other spaces' Ritz vectors to ``Q``, without a product.

        Those with small residuals come first. One that lies in ``Q`` but for less than 0.3 of its
        length is left out: the rounding of products would grow.
        """
        size, width = self.size, self.width
        directions = [*self._rows[size : size + width].clone(), *(o.direction for o in others)]
        room = len(self._rows) - len(directions)
        R = np.eye(size)  # of the added vectors X = Q R
        diagonal: list[float] = []
        E = np.vstack([self.C, np.zeros((len(others), size))])  # H X = X diag(T, diagonal) + G E
        queue = [(abs(s), at, i) for at, one in enumerate(others) for i, s in enumerate(one.sizes)]
        for _, at, i in sorted(queue):
            if len(R) >= room:
                break
            residue, along = orthogonalised(others[at].rows[i], self._rows[: len(R)])
            outside = inner(residue, residue) ** 0.5
            if outside < _OUTSIDE:
                continue
            self._rows[len(R)] = residue / outside
            R = np.block([[R, along[:, None]], [np.zeros((1, len(R))), np.array([[outside]])]])
            diagonal.append(others[at].values[i])
            column = np.zeros((len(E), 1))
            column[width + at] = others[at].sizes[i]
            E = np.hstack([E, column])
        if not diagonal:
            return
        own = np.zeros(R.shape)
        own[:size, :size] = self.T
        own[range(size, len(R)), range(size, len(R))] = diagonal
        inverse = np.linalg.inv(R)
        self.T, self.C = R @ own @ inverse, np.zeros((0, len(R)))
        self._lead(torch.stack(directions), E @ inverse)
        self.growth *= float(np.linalg.norm(inverse, 2))

    def _lead(self, images: Tensor, E: Matrix) -> None:
        """Add ``G E`` to ``H Q``, for images ``G``, ``(g, P)``: what is in ``Q`` and the rest."""
        size = self.size
        for image, row in zip(images, E, strict=True):
            residue, along = orthogonalised(image, self._rows[: size + self.width])
            self.T = self.T + np.outer(along[:size], row)
            self.C = self.C + np.outer(along[size:], row)
            beta, length = inner(residue, residue) ** 0.5, inner(image, image) ** 0.5
            if not vanishes(beta, length, image.dtype) and size + self.width < len(image):
                self._rows[size + self.width] = residue / beta
                self.C = np.vstack([self.C, beta * row])
        self.T = (self.T + self.T.T) / 2


def _rotate(rows: Tensor, turn: Matrix) -> None:
    """Replace the first rows by ``turn @ rows``, in place."""
    turned = torch.tensor(turn, dtype=rows.dtype, device=rows.device)
    for block in torch.split(rows, _BLOCK, dim=1):
        block[: len(turned)] = turned @ block


def _beginning_with(row: Vector) -> Matrix:
    """An orthogonal matrix whose first row is the unit vector ``row``, a reflection."""
    if row[0] < 0:
        return -_beginning_with(-row)
    ahead = row.copy()
    ahead[0] += 1.0
    return 2 * np.outer(ahead, ahead) / (ahead @ ahead) - np.eye(len(row))
