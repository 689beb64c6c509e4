"""The whole spectrum of the Gauss-Newton matrix on a small set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from robaudit.curvature.gram import gram_spectrum
from robaudit.curvature.lanczos import Tridiagonal
from robaudit.curvature.selection import chosen_parameters, coordinates
from robaudit.curvature.spectrum import Spectrum, density_of
from robaudit.engine import effective, frozen
from robaudit.engine.arguments import checked_features
from robaudit.types import Progress


@checked_features
def small_spectrum(
    model: nn.Module,
    x: Tensor,
    *,
    top: int = 5,
    relative: bool = False,
    layers: Sequence[str] | None = None,
    memory: int = 2 << 30,
    progress: Progress | None = None,
) -> Spectrum:
    """:func:`~robaudit.curvature.spectrum` of the Gauss-Newton matrix, without estimates.

    Every eigenvalue comes from :func:`~robaudit.curvature.gram_spectrum`. Trace and density are
    sums over them; the residuals are those of rounding.

    Args:
        model: images to logits ``(n, k)``; it is left unchanged.
        x: a small set of images ``(n, c, h, w)``; labels are not needed.
        top: number of largest eigenvalues to return.
        relative: the spectrum of ``D G D``, as in :func:`robaudit.curvature.spectrum`.
        layers: names of layers (meaning their weight) or parameters; by default all parameters.
        memory: bytes for gradients.
        progress: called with the blocks of examples done and in all.

    Returns:
        The spectrum, with ``method="gram"``.

    Raises:
        UsageError, NotMeasuredError: as :func:`~robaudit.curvature.gram_spectrum`.

    >>> net = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 3))
    >>> found = small_spectrum(net, torch.rand(2, 1, 2, 2), top=2)
    >>> found.method, len(found.largest), found.smallest
    ('gram', 2, 0.0)
    """
    given, model = model, effective(model, x)
    with frozen(model):
        chosen = coordinates(given, model, layers, x)
    dim = chosen.dimension
    values = gram_spectrum(
        model, x, layers=layers, relative=relative, memory=memory, progress=progress
    ).numpy()
    dtype = next(iter(chosen_parameters(model, chosen.layers).values())).dtype
    null = dim - len(values)
    nodes = values[::-1] if null == 0 else np.append(0.0, values[::-1])
    weights = np.full(len(nodes), 1 / dim)
    weights[0] *= max(1, null)
    rounding = 16 * torch.finfo(dtype).eps * float(values[0])
    density = density_of([Tridiagonal(nodes, weights, np.full(len(nodes), rounding))])
    return Spectrum(
        largest=tuple(values[:top].tolist()),
        smallest=0.0 if null else float(values[-1]),
        residuals=tuple([rounding] * min(top, len(values))),
        smallest_residual=0.0 if null else rounding,
        trace=float(values.sum()),
        trace_standard_error=0.0,
        density=replace(density, standard_error=np.zeros_like(density.density)),
        products=0,
        note=None,
        operator="gauss-newton",
        dimension=dim,
        restarts=0,
        method="gram",
        notes=chosen.notes,
    )
