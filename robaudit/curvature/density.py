"""The spectral density, by stochastic Lanczos quadrature."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from robaudit.brief import brief
from robaudit.curvature.lanczos import Tridiagonal, Vector


@dataclass(frozen=True)
class Density:
    """``phi(t) = (1/P) sum_i N(t; lambda_i, sigma^2)``, estimated on a grid.

    Attributes:
        grid: ``(g,)`` eigenvalues.
        density: ``(g,)`` mean over probes; integrates to one.
        standard_error: ``(g,)`` of that mean, over probes; ``nan`` for a single probe. It does not
            include the error of the finite number of quadrature nodes.
        sigma: width of the Gaussian kernel.
    """

    grid: Vector
    density: Vector
    standard_error: Vector
    sigma: float

    __repr__ = brief


def density_of(runs: Sequence[Tridiagonal], points: int = 256) -> Density:
    """The mean over quadratures, with a kernel of a hundredth of the spectrum's width.

    Source: Ghorbani, Krishnan & Xiao, "An investigation into neural net optimization via Hessian
    eigenvalue density", ICML 2019.
    """
    low = min(float(run.eigenvalues[0]) for run in runs)
    high = max(float(run.eigenvalues[-1]) for run in runs)
    width = max(high - low, 1e-12)
    sigma = 0.01 * width
    grid = np.linspace(low - 4 * sigma, high + 4 * sigma, points)
    rows = []
    for run in runs:
        z = (grid[:, None] - run.eigenvalues[None, :]) / sigma
        rows.append(np.exp(-0.5 * z**2) @ run.weights / (sigma * np.sqrt(2 * np.pi)))
    values = np.array(rows)
    error = values.std(0, ddof=1) / len(rows) ** 0.5 if len(rows) > 1 else np.full(points, np.nan)
    return Density(grid, values.mean(0), error, sigma)
