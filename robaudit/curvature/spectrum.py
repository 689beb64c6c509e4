"""Both ends of the Hessian's spectrum, its density and its trace, from the same Lanczos runs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from robaudit.curvature.lanczos import Tridiagonal, Vector, lanczos
from robaudit.curvature.products import hessian_product, relative_scale
from robaudit.engine import frozen, generator
from robaudit.errors import NotMeasuredError
from robaudit.types import Progress

# The basis is kept on the device; more steps than this memory holds are not taken.
_BASIS_BYTES = 2 << 30


@dataclass(frozen=True)
class Density:
    """``phi(t) = (1/P) sum_i N(t; lambda_i, sigma^2)``, estimated on a grid.

    Attributes:
        grid: ``(g,)`` eigenvalues.
        density: ``(g,)`` mean over probes; integrates to one.
        standard_error: ``(g,)`` over probes.
        sigma: width of the Gaussian kernel.
    """

    grid: Vector
    density: Vector
    standard_error: Vector
    sigma: float


@dataclass(frozen=True)
class Spectrum:
    """Extreme eigenvalues with their residuals, density and trace.

    Attributes:
        largest: the ``top`` largest eigenvalues, descending.
        smallest: the smallest eigenvalue.
        residuals: of ``largest``; each eigenvalue has a true one within its residual. They count
            the products' rounding, 16 units in the last place of the largest eigenvalue.
        smallest_residual: of ``smallest``.
        trace, trace_standard_error: ``Tr(H)`` by Hutchinson's estimator on the start vectors, and
            its standard error over probes.
        products: Hessian-vector products spent.
        converged: every residual is within the tolerance.
    """

    largest: tuple[float, ...]
    smallest: float
    residuals: tuple[float, ...]
    smallest_residual: float
    trace: float
    trace_standard_error: float
    density: Density
    products: int
    converged: bool


def spectrum(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    top: int = 5,
    probes: int = 5,
    steps: int = 80,
    density_steps: int = 40,
    tolerance: float = 1e-3,
    relative: bool = False,
    seed: int = 0,
    progress: Progress | None = None,
) -> Spectrum:
    """Spectrum of the Hessian of the mean cross-entropy in all parameters.

    Lanczos from a Rademacher vector runs until the ``top`` largest and the smallest eigenvalue have
    residuals within ``tolerance`` of themselves. Its coefficients, and ``probes - 1`` shorter runs,
    give the density by stochastic Lanczos quadrature and the trace.

    Args:
        x, y: images (usually adversarial, held fixed) and labels.
        steps, density_steps: Hessian-vector products at most, of the first run and of the others.
        relative: of ``D H D``, ``D`` the norm of each parameter tensor, which rescaling of layers
            leaves alone; plain eigenvalues are not scale invariant.

    Raises:
        NotMeasuredError: the loss's second derivative is not finite, or does not exist.

    Source: Ghorbani, Krishnan & Xiao, "An investigation into neural net optimization via Hessian
    eigenvalue density", ICML 2019, for the quadrature.
    """
    with frozen(model):
        first = next(model.parameters())
        dim = sum(p.numel() for p in model.parameters())
        hessian = hessian_product(model, x, y)
        scale = relative_scale(model) if relative else None
        budget = steps + (probes - 1) * density_steps
        spent = 0

        def product(v: Tensor) -> Tensor:
            nonlocal spent
            spent += 1
            try:
                out = hessian(v) if scale is None else scale * hessian(scale * v)
            except RuntimeError as error:
                if "derivative" not in str(error):
                    raise
                raise NotMeasuredError(f"the network resists double backward: {error}") from error
            if not bool(out.isfinite().all()):
                raise NotMeasuredError("the loss's second derivative is not finite")
            if progress is not None:
                progress(min(spent, budget), budget)
            return out

        held = max(4, _BASIS_BYTES // (dim * first.element_size()))
        runs, traces = [], []
        for probe in range(probes):
            signs = torch.randint(2, (dim,), generator=generator(seed, "lanczos", probe)) * 2 - 1
            run = lanczos(
                product,
                signs.to(first),
                min(held, density_steps if probe else steps),
                largest=0 if probe else top,
                smallest=0 if probe else 1,
                tolerance=0.0 if probe else tolerance,
            )
            runs.append(run)
            traces.append(dim * float(run.weights @ run.eigenvalues))
        if progress is not None:
            progress(budget, budget)
    ends = runs[0]
    values = ends.eigenvalues
    # A product in float32 is itself off by rounding, which the Lanczos bound does not know of.
    rounding = 16 * torch.finfo(first.dtype).eps * float(np.abs(values).max())
    residuals = ends.residuals + rounding
    from_top = range(len(values) - 1, max(-1, len(values) - 1 - top), -1)
    return Spectrum(
        largest=tuple(float(values[i]) for i in from_top),
        smallest=float(values[0]),
        residuals=tuple(float(residuals[i]) for i in from_top),
        smallest_residual=float(residuals[0]),
        trace=float(np.mean(traces)),
        trace_standard_error=float(np.std(traces, ddof=1) / probes**0.5) if probes > 1 else np.nan,
        density=_density(runs),
        products=spent,
        converged=all(residuals[i] <= tolerance * abs(values[i]) for i in [*from_top, 0]),
    )


def _density(runs: list[Tridiagonal], points: int = 256) -> Density:
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
