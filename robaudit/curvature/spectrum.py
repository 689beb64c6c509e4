"""Extreme eigenvalues, spectral density and trace of a curvature matrix, by Lanczos."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from robaudit.brief import brief
from robaudit.curvature.double_backward import checked_double_backward
from robaudit.curvature.lanczos import Tridiagonal, Vector, lanczos
from robaudit.curvature.losses import require_finite
from robaudit.curvature.products import (
    Product,
    gauss_newton_product,
    hessian_product,
    relative_scale,
)
from robaudit.curvature.selection import chosen_parameters, effective_coordinates
from robaudit.curvature.thick_restart import SPARE, extremes
from robaudit.engine import device_of, frozen, generator
from robaudit.engine.arguments import checked_features
from robaudit.errors import UsageError
from robaudit.notebook import html
from robaudit.types import Operator, Progress

# Default budget for vectors, in bytes.
MEMORY = 2 << 30
# Vectors in addition to the basis: the newest residue and those used to orthogonalise it.
_WORKING = 3


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


@dataclass(frozen=True)
class Spectrum:
    """Extreme eigenvalues with their residuals, density and trace.

    Attributes:
        largest: the ``top`` largest eigenvalues, descending; fewer where the dimension or ``steps``
            is smaller.
        smallest: the smallest eigenvalue.
        residuals: of ``largest``; a true eigenvalue is within the residual of each. They include
            the products' rounding, 16 units in the last place of the largest eigenvalue.
        smallest_residual: of ``smallest``.
        trace: by Hutchinson's estimator on the start vectors.
        trace_standard_error: of ``trace``, over probes.
        density: of all eigenvalues.
        products: number of matrix-vector products.
        note: the eigenvalues whose residuals exceed the tolerance; ``None`` if there are none.
        operator: ``hessian`` or ``gauss-newton``.
        dimension: number of parameters it acts on, without pruned entries.
        restarts: number of restarts because the basis was full.
        method: ``gram`` if every eigenvalue comes from the Gram matrix, without iteration, probes,
            or errors other than rounding.
        notes: how the weights of parametrised and pruned modules were treated, and which parameters
            no forward pass uses and are left out.
    """

    largest: tuple[float, ...]
    smallest: float
    residuals: tuple[float, ...]
    smallest_residual: float
    trace: float
    trace_standard_error: float
    density: Density
    products: int
    note: str | None
    operator: Operator
    dimension: int
    restarts: int
    method: Literal["lanczos", "gram"] = "lanczos"
    notes: tuple[str, ...] = ()

    @property
    def converged(self) -> bool:
        """Whether every residual is within the tolerance."""
        return self.note is None

    __repr__ = brief
    _repr_html_ = html


@checked_features
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
    operator: Operator = "hessian",
    layers: Sequence[str] | None = None,
    memory: int | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Spectrum:
    """Spectrum of the mean cross-entropy's Hessian, or of its Gauss-Newton matrix.

    Lanczos with thick restarts runs from a Rademacher vector until the ``top`` largest and the
    smallest eigenvalue have residuals within ``tolerance`` of themselves. This run and ``probes -
    1`` more give the density by stochastic Lanczos quadrature, and the trace.

    Args:
        model: images to logits ``(n, k)``; it is left unchanged.
        x: images ``(n, c, h, w)``, usually adversarial ones, held fixed.
        y: labels ``(n,)``.
        top: number of largest eigenvalues.
        probes: number of random start vectors for density and trace.
        steps: largest number of products for the eigenvalues.
        density_steps: products for the density of each further probe.
        tolerance: of the residuals, relative to the eigenvalues.
        relative: the spectrum of ``D H D``, ``D`` the norm of each parameter's tensor, which is
            invariant under rescaling of layers; the plain eigenvalues are not.
        operator: ``hessian``, or ``gauss-newton``, which is positive semi-definite; where that has
            more parameters than examples times classes, its smallest eigenvalue is zero and is not
            searched for.
        layers: names of layers (meaning their weight) or parameters; by default all parameters.
        memory: bytes for vectors; a smaller budget means more restarts, and so more products. By
            default 2 GiB, or what the required vectors take if that is more.
        seed: of the start vectors.
        progress: called with the products done and the products expected.

    Returns:
        Eigenvalues with residuals, density and trace.

    Raises:
        UsageError: no such layer, or a budget too small for the required vectors.
        NotMeasuredError: the loss or its second derivative is not finite, or does not exist.

    Source: Ghorbani, Krishnan & Xiao, "An investigation into neural net optimization via Hessian
    eigenvalue density", ICML 2019, for the quadrature; Wu & Simon 2000 for the restarts.

    >>> net = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    >>> found = spectrum(net, torch.rand(5, 1, 2, 2), torch.zeros(5).long(), top=1)
    >>> found.dimension, found.largest[0] > found.smallest
    (23, True)
    """
    model, chosen = effective_coordinates(model, layers, x)
    layers, dim = chosen.layers, chosen.dimension
    with frozen(model), checked_double_backward(model, x, y, layers, operator):
        like = next(iter(chosen_parameters(model, layers).values()))
        bottom = _bottom(model, x, dim, operator)
        held = _vectors_held(memory, dim * like.element_size(), min(top + bottom + SPARE, dim))
        matrix = chosen.restricted(_matrix(model, x, y, operator, layers, relative))
        budget = steps + (probes - 1) * density_steps
        spent = 0

        def product(v: Tensor) -> Tensor:
            nonlocal spent
            spent += 1
            out = require_finite(matrix(v), model, x, y)
            if progress is not None:
                progress(min(spent, budget), budget)
            return out

        def start(probe: int) -> Tensor:
            signs = torch.randint(2, (dim,), generator=generator(seed, "lanczos", probe)) * 2 - 1
            return signs.to(like)

        ends = extremes(
            product,
            start(0),
            steps,
            largest=top,
            smallest=bottom,
            tolerance=tolerance,
            held=held,
            at_least=min(density_steps, steps) if probes > 1 else 0,
        )
        # All probes need the same number of nodes; a basis that was full earlier has too few.
        usable = probes == 1 or not ends.restarts or len(ends.quadrature.weights) >= density_steps
        runs = [ends.quadrature] if usable else []
        runs += [
            lanczos(product, start(probe), density_steps, held=max(2, held))
            for probe in range(len(runs), probes)
        ]
        if progress is not None:
            progress(budget, budget)
    # The Lanczos bound does not include the rounding of the products.
    rounding = 16 * torch.finfo(like.dtype).eps * float(np.abs(ends.eigenvalues).max())
    largest = ends.eigenvalues[::-1][:top]
    residuals = ends.residuals[::-1][:top] + rounding
    smallest, below = 0.0, 0.0
    if bottom:
        smallest, below = float(ends.eigenvalues[0]), float(ends.residuals[0]) + rounding
    late = [
        f"{name} {value:.4g} +- {residual:.2g}"
        for name, value, residual in [
            *(
                (f"number {i + 1}", v, r)
                for i, (v, r) in enumerate(zip(largest, residuals, strict=True))
            ),
            ("the smallest", smallest, below),
        ]
        if not residual <= tolerance * abs(value)
    ]
    traces = dim * np.array([run.weights @ run.eigenvalues for run in runs])
    return Spectrum(
        largest=tuple(largest.tolist()),
        smallest=smallest,
        residuals=tuple(residuals.tolist()),
        smallest_residual=below,
        trace=float(traces.mean()),
        trace_standard_error=float(traces.std(ddof=1) / probes**0.5) if probes > 1 else np.nan,
        density=density_of(runs),
        products=spent,
        note=_note(late, tolerance, ends.products, ends.restarts),
        operator=operator,
        dimension=dim,
        restarts=ends.restarts,
        notes=chosen.notes,
    )


def _bottom(model: nn.Module, x: Tensor, dim: int, operator: Operator) -> int:
    """Number of smallest eigenvalues to compute: none where zero is known to be one."""
    if operator == "hessian":
        return 1
    with torch.no_grad():
        classes = model(x[:1].to(device_of(model))).shape[1]
    return int(dim <= len(x) * (classes - 1))


def _vectors_held(memory: int | None, one: int, needed: int) -> int:
    if memory is None:
        return max(MEMORY // one - _WORKING, needed)
    held = memory // one - _WORKING
    if held < needed:
        raise UsageError(
            f"one vector takes {one} bytes and {needed + _WORKING} are needed, but the memory "
            f"budget is {memory} bytes",
            f"Give at least {(needed + _WORKING) * one} bytes, or ask for fewer eigenvalues or "
            "fewer layers.",
        )
    return held


def _matrix(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    operator: Operator,
    layers: Sequence[str] | None,
    relative: bool,
) -> Product:
    if operator == "hessian":
        matrix = hessian_product(model, x, y, layers=layers)
    else:
        matrix = gauss_newton_product(model, x, layers=layers)
    if not relative:
        return matrix
    scale = relative_scale(model, layers)
    return lambda v: scale * matrix(scale * v)


def _note(late: list[str], tolerance: float, products: int, restarts: int) -> str | None:
    if not late:
        return None
    shown = ", ".join(late[:3]) + (f" and {len(late) - 3} more" if len(late) > 3 else "")
    full = f" and {restarts} restarts, since the memory budget was full" if restarts else ""
    return (
        f"after {products} products{full}, these eigenvalues are known to their residual only, "
        f"which is more than {tolerance:g} of them: {shown}"
    )


def density_of(runs: Sequence[Tridiagonal], points: int = 256) -> Density:
    """The mean over quadratures, with a kernel of a hundredth of the spectrum's width."""
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
