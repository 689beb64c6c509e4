"""The largest eigenvalue of the Hessian, with few Hessian products."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from robaudit.curvature.double_backward import checked_double_backward
from robaudit.curvature.losses import require_finite
from robaudit.curvature.products import hessian_product
from robaudit.curvature.selection import effective_coordinates, leaves_of
from robaudit.curvature.spectrum import MEMORY
from robaudit.curvature.thick_restart import SPARE, extremes
from robaudit.engine import device_of, frozen, generator
from robaudit.engine.arguments import checked_features


@dataclass(frozen=True)
class Largest:
    """The largest Ritz value of the Hessian, with its error bound.

    Attributes:
        value: the eigenvalue.
        residual: ``||H u - value u||`` for the unit vector ``u``: an eigenvalue is within this
            distance of ``value``.
        products: number of Hessian products; one gradient is computed in addition.
        converged: whether the residual is within the tolerance.
    """

    value: float
    residual: float
    products: int
    converged: bool


@checked_features
def largest_eigenvalue(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    tolerance: float = 1e-3,
    steps: int = 100,
    layers: Sequence[str] | None = None,
    seed: int = 0,
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
        layers: names of layers (meaning their weight) or parameters; by default all parameters.
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
    with frozen(model), checked_double_backward(model, x, y, layers):
        start = chosen.gathered(curved_direction(model, x, layers=layers))
        require_finite(start, model, x, y, "the logits' gradients are")
        if not bool(start.any()):
            draw = generator(seed, "largest eigenvalue")
            start = torch.randn(start.shape, generator=draw).to(start)
        product = chosen.restricted(hessian_product(model, x, y, layers=layers))
        held = max(MEMORY // (start.element_size() * len(start)), 1 + SPARE)
        found = extremes(
            lambda v: require_finite(product(v), model, x, y),
            start,
            steps,
            largest=1,
            tolerance=tolerance,
            held=held,
        )
    value, residual = float(found.eigenvalues[-1]), float(found.residuals[-1])
    return Largest(value, residual, found.products, residual <= tolerance * abs(value))


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
