"""Exact spectrum of the Gauss-Newton matrix on a small set, from a Gram matrix."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from robaudit.curvature.density import density_of
from robaudit.curvature.derivatives import check_derivatives
from robaudit.curvature.lanczos import Tridiagonal
from robaudit.curvature.per_example import column_gradients
from robaudit.curvature.products import relative_scale
from robaudit.curvature.selection import chosen_parameters, effective_coordinates, leaves_of
from robaudit.curvature.softmax import logit_curvature_factor
from robaudit.curvature.spectrum import Spectrum
from robaudit.engine import device_of, frozen
from robaudit.engine.arguments import checked_features
from robaudit.errors import NotMeasuredError, UsageError
from robaudit.types import Progress

# Columns that are converted to float64 and multiplied at once.
_BLOCK = 1 << 16


@checked_features
def gram_spectrum(
    model: nn.Module,
    x: Tensor,
    *,
    layers: Sequence[str] | None = None,
    relative: bool = False,
    memory: int = 2 << 30,
    progress: Progress | None = None,
) -> Tensor:
    """The eigenvalues of the Gauss-Newton matrix, without those that are zero by its rank.

    With ``R``'s rows ``J_i^T s_ic / sqrt(n)``, the ``n (k - 1)`` gradients of example i's logits
    along the columns of a factor of ``diag(p_i) - p_i p_i^T``, the matrix is ``G = R^T R``, and
    ``R R^T``, ``(n (k - 1), n (k - 1))``, has the same nonzero eigenvalues. There is no iteration
    and no estimate; labels are not needed. The cost grows with the square of ``n (k - 1)``.

    Args:
        model: images to logits ``(n, k)``; it is left unchanged.
        x: a small set of images ``(n, c, h, w)``.
        layers: names of layers (meaning their weight) or parameters; by default all parameters.
        relative: the spectrum of ``D G D``, as in :func:`robaudit.curvature.spectrum`.
        memory: bytes for gradients. Gradients that do not fit are recomputed.
        progress: called with the blocks of examples done and in all.

    Returns:
        ``(min(n (k - 1), P),)`` descending, float64 on the CPU; rounding can make some negative.

    Raises:
        UsageError: the Gram matrix, or a single example's gradients, do not fit in ``memory``.
        NotMeasuredError: the gradients are not finite, or wrong.

    Source: Dangel, Tatzel & Hennig, "ViViT: curvature access through the generalized Gauss-Newton's
    low-rank structure", TMLR 2022.

    >>> net = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 3))
    >>> gram_spectrum(net, torch.rand(2, 1, 2, 2)).shape
    torch.Size([4])
    """
    model, chosen = effective_coordinates(model, layers, x)
    layers, dim = chosen.layers, chosen.dimension
    with frozen(model):
        check_derivatives(model, x, "gradient", layers)
        device = device_of(model)
        leaves = leaves_of(model, layers)
        with torch.no_grad():
            columns = model(x[:1].to(device)).shape[1] - 1
        like = next(iter(leaves.values()))
        size = len(x) * columns
        together = _together(memory, len(x), columns, dim, like.element_size())
        scale = relative_scale(model, layers) if relative else None

        def rows(start: int) -> Tensor:
            """Scaled gradients of a block of examples, ``(examples * (k - 1), P)``."""
            gradients = [_rows(model, leaves, row.to(device)) for row in x[start:][:together]]
            stacked = torch.cat(gradients)
            return chosen.gathered(stacked if scale is None else torch.mul(stacked, scale))

        gram = torch.zeros(size, size, dtype=torch.float64, device=device)
        starts = range(0, len(x), together)
        for done, a in enumerate(starts):
            left = rows(a)
            for b in starts[done:]:
                right = left if b == a else rows(b)
                block = _products(left, right)
                here = slice(a * columns, a * columns + len(left))
                there = slice(b * columns, b * columns + len(right))
                gram[here, there] = block
                gram[there, here] = block.T
            if progress is not None:
                progress(done + 1, len(starts))
    if not bool(gram.isfinite().all()):
        raise NotMeasuredError("the logits' gradients are not finite on some images")
    # On the CPU: float64 solvers of CUDA are not available everywhere.
    eigenvalues: Tensor = torch.linalg.eigvalsh((gram / len(x)).cpu())
    return eigenvalues.flip(0)[:dim]


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
    model, chosen = effective_coordinates(model, layers, x)
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


def gram_bytes(n: int, columns: int, dim: int, element: int) -> int:
    """The smallest ``memory`` that :func:`gram_spectrum` accepts.

    Args:
        n: number of images.
        columns: number of classes minus one.
        dim: number of parameters.
        element: bytes per parameter.

    Returns:
        Bytes.

    >>> gram_bytes(n=10, columns=9, dim=1000, element=4)
    302400
    """
    return 3 * 8 * (n * columns) ** 2 + 3 * columns * dim * element


def _together(memory: int, n: int, columns: int, dim: int, element: int) -> int:
    """The number of examples whose gradients are held at once, in each of two blocks."""
    square, one = 3 * 8 * (n * columns) ** 2, columns * dim * element
    least = gram_bytes(n, columns, dim, element)
    if least > memory:
        raise UsageError(
            f"the Gram matrix of {n} images takes {square} bytes and one image's gradients "
            f"{one}, but the memory budget is {memory} bytes",
            f"Give at least {least} bytes, or take fewer images or layers.",
        )
    return min(n, (memory - square) // (3 * one))


def _rows(model: nn.Module, leaves: dict[str, Tensor], image: Tensor) -> Tensor:
    with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
        logits = functional_call(model, leaves, (image[None],))
        tensors = list(leaves.values())
        columns = logit_curvature_factor(logits.detach())
        gradients = column_gradients(logits, tensors, columns)
    return torch.cat(
        [
            tensor.new_zeros(len(columns), tensor.numel()) if g is None else g.flatten(1)
            for tensor, g in zip(tensors, gradients, strict=True)
        ],
        dim=1,
    )


def _products(left: Tensor, right: Tensor) -> Tensor:
    blocks = zip(torch.split(left, _BLOCK, 1), torch.split(right, _BLOCK, 1), strict=True)
    total = torch.zeros(len(left), len(right), dtype=torch.float64, device=left.device)
    for a, b in blocks:
        total += a.double() @ b.double().T
    return total
