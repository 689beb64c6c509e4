"""The largest eigenvalue of the Hessian, with few Hessian products."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from robaudit.curvature.double_backward import checked_double_backward
from robaudit.curvature.krylov import Space
from robaudit.curvature.losses import require_finite
from robaudit.curvature.matrices import Matrices, default_memory
from robaudit.curvature.selection import effective_coordinates, leaves_of
from robaudit.curvature.shared_runs import Wanted, judged
from robaudit.curvature.thick_restart import SPARE
from robaudit.engine import device_of, frozen, generator
from robaudit.engine.arguments import checked_features
from robaudit.engine.precision import Arithmetic, Precision
from robaudit.types import Operator, Progress


@dataclass(frozen=True)
class Largest:
    """The largest Ritz value of the Hessian, with its error bound.

    Attributes:
        value: the eigenvalue.
        residual: ``||H u - value u||`` for the unit vector ``u``: an eigenvalue is within this
            distance of ``value``.
        products: number of Hessian products; one gradient is computed in addition.
        converged: whether the residual is within the tolerance.
        precision: of the products that searched; the residual is of products in float32, whose
            rounding it includes.
    """

    value: float
    residual: float
    products: int
    converged: bool
    precision: Precision = "fp32"


@checked_features
def largest_eigenvalue(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    tolerance: float = 1e-3,
    steps: int = 100,
    relative: bool = False,
    operator: Operator = "hessian",
    layers: Sequence[str] | None = None,
    memory: int | None = None,
    precision: Arithmetic = "fp32",
    seed: int = 0,
    progress: Progress | None = None,
) -> Largest:
    """The largest eigenvalue of the mean cross-entropy's Hessian.

    Lanczos from :func:`curved_direction` until the residual is within ``tolerance`` of the value,
    or ``steps`` products. It needs far fewer than :func:`robaudit.curvature.spectrum`, which also
    computes the smallest eigenvalue and the density, and so starts from random vectors.

    Args:
        model: images to logits ``(n, k)``; it is left unchanged.
        x: images ``(n, c, h, w)``, usually adversarial ones, held fixed.
        y: labels ``(n,)``.
        tolerance: of the residual, relative to the eigenvalue.
        steps: largest number of Hessian products.
        relative, operator, layers, precision, progress: as in
            :func:`robaudit.curvature.spectrum`.
        memory: bytes for vectors, as there, or what four more than one take if that is more.
        seed: of the random start that is used where the curved direction vanishes.

    Returns:
        The eigenvalue with its residual.

    Raises:
        UsageError: no such layer.
        NotMeasuredError: the loss or its second derivative is not finite, or does not exist.

    Source: of the start: Papyan, JMLR 21, 2020; see :func:`curved_direction`.

    >>> net = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    >>> largest_eigenvalue(net, torch.rand(5, 1, 2, 2), torch.zeros(5).long()).converged
    True
    """
    model, chosen = effective_coordinates(model, layers, x)
    layers = chosen.layers
    with frozen(model), checked_double_backward(model, x, y, layers, operator):
        direction = curved_direction(model, x, layers=layers)
        matrices = Matrices(
            model,
            x,
            y,
            chosen,
            operator=operator,
            relative=relative,
            budget=steps,
            progress=progress,
        )
        if matrices.scale is not None:
            direction = matrices.scale * direction
        start = chosen.gathered(direction)
        require_finite(start, model, x, y, "the logits' gradients are")
        if not bool(start.any()):
            draw = generator(seed, "largest eigenvalue")
            start = torch.randn(start.shape, generator=draw).to(start)
        searched, rounding = matrices.searching(precision, start)
        room = default_memory(start.device) if memory is None else memory
        held = max(room // (start.element_size() * len(start)), 1 + SPARE)
        wanted = Wanted(1, 0, max(tolerance, rounding.relative), steps, held)
        space = Space(start, 1 + min(held, steps, len(start)))
        found = wanted.advance(space, matrices.product(searched), steps)
        if searched != "fp32":
            left = max(0, steps - found.products)
            wanted = replace(wanted, tolerance=tolerance)
            found, space = judged(space, matrices.product("fp32"), wanted, left)
        if progress is not None:
            progress(steps, steps)
    value = float(found.eigenvalues[-1])
    residual = float(found.residuals[-1]) + space.rounding
    return Largest(value, residual, matrices.spent, residual <= tolerance * abs(value), searched)


def curved_direction(
    model: nn.Module, x: Tensor, chunk: int = 256, *, layers: Sequence[str] | None = None
) -> Tensor:
    """A direction of large curvature from one backward pass, ``(P,)``, not normalised.

    ``(1/n) sum_i J_i^T Lambda_i z``, with ``Lambda_i = diag(p_i) - p_i p_i^T`` and ``z`` the
    leading eigenvector of their mean. The few large eigenvalues of a classifier's Hessian belong to
    directions in which the logits of whole classes move together.

    Source of this observation: Papyan, "Traces of class/cross-class structure pervade deep learning
    spectra", JMLR 21, 2020.
    """
    with frozen(model):
        device = device_of(model)
        leaves = leaves_of(model, layers)
        with torch.no_grad():
            logits = torch.cat([model(images.to(device)) for images in torch.split(x, chunk)])
        p = logits.double().softmax(1)
        mean = p.mean(0).diag() - p.T @ p / len(p)
        if not bool(mean.isfinite().all()):
            return torch.cat(
                [torch.full_like(leaf, torch.nan).flatten() for leaf in leaves.values()]
            )
        # On the CPU: float64 solvers of CUDA are not available everywhere.
        z = torch.linalg.eigh(mean.cpu()).eigenvectors[:, -1].to(mean.device)
        moved = (p * (z - (p @ z)[:, None]) / len(p)).to(logits)
        total = torch.cat([torch.zeros_like(leaf).flatten() for leaf in leaves.values()])
        for images, part in zip(torch.split(x, chunk), torch.split(moved, chunk), strict=True):
            with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
                pieces = torch.autograd.grad(
                    functional_call(model, leaves, (images.to(device),)),
                    list(leaves.values()),
                    part,
                    materialize_grads=True,
                )
            total += torch.cat([piece.flatten() for piece in pieces])
    return total
