"""The Fisher-Rao norm of a network's weights."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from robaudit.brief import brief
from robaudit.curvature.chunk_sizes import evenly
from robaudit.curvature.double_backward import checked_double_backward
from robaudit.curvature.losses import require_finite, standard_error
from robaudit.curvature.selection import chosen_parameters, effective_coordinates
from robaudit.engine import device_of, frozen
from robaudit.engine.arguments import checked_features
from robaudit.engine.images import rows_of


@dataclass(frozen=True)
class FisherRao:
    """The Fisher-Rao norm with its standard error.

    Attributes:
        value: ``sqrt(<w, F w>)``.
        standard_error: over examples, by the delta method; ``nan`` for a single one.
        per_example: each example's term of ``<w, F w>``, ``(n,)`` float64 on the CPU.
        notes: which tensors were taken as the weights, if not the parameters.
    """

    value: float
    standard_error: float
    per_example: Tensor
    notes: tuple[str, ...]

    __repr__ = brief


@checked_features
def fisher_rao(model: nn.Module, x: Tensor, *, chunk: int = 32) -> FisherRao:
    """``sqrt(<w, F w>)``, ``F = E_x E_{c ~ p} g g^T`` the model's Fisher information.

    ``g`` is the gradient in all parameters ``w`` of the cross-entropy of class ``c``, drawn from
    the network's own softmax ``p``. As ``g = J^T (p - e_c)``, and with ``J w`` the derivative of
    the logits when all parameters grow in proportion, ``<w, g>^2`` has the mean over classes
    ``Var_{c ~ p}((J w)_c)``: one product with the Jacobian for an example, and no draw.

    It is invariant under rescalings of the parameters that leave the function unchanged. In a
    network of ``L`` layers with ReLU and without biases ``J w = L f(x)``.

    Args:
        model: images to logits ``(n, k)``; it is left unchanged.
        x: images ``(n, c, h, w)``, held fixed.
        chunk: images per pass.

    Returns:
        The norm with its standard error over examples.

    Raises:
        NotMeasuredError: the logits or their derivative are not finite, or wrong, or do not exist.

    Source: Liang et al., "Fisher-Rao metric, geometry, and complexity of neural networks", AISTATS
    2019, with labels from the model; what it is without biases is their main theorem.

    >>> net = nn.Sequential(nn.Flatten(), nn.Linear(4, 3, bias=False)).eval()
    >>> x = torch.rand(5, 1, 2, 2)
    >>> p = net(x).softmax(1)
    >>> var = (p * net(x) ** 2).sum(1) - (p * net(x)).sum(1) ** 2
    >>> abs(fisher_rao(net, x).value - var.mean().sqrt().item()) < 1e-5
    True
    """
    model, chosen = effective_coordinates(model, None, x)
    n = len(x)
    x = torch.cat([x, x]) if n == 1 else x  # networks are not run on a single image
    y = torch.zeros(len(x), dtype=torch.long)
    parts = []
    device = device_of(model)
    with frozen(model), checked_double_backward(model, x, y, chosen.layers, "gauss-newton"):
        weights = chosen_parameters(model, chosen.layers)
        for here in evenly(len(x), chunk):
            logits, moved = _growth(model, weights, rows_of(x, here, device))
            p, moved = logits.double().softmax(1), moved.double()
            spread = moved - (p * moved).sum(1, keepdim=True)
            parts.append((p * spread.square()).sum(1).cpu())
        per_example = require_finite(torch.cat(parts)[:n], model, x, y, "the logits' growth is")
    value = math.sqrt(float(per_example.mean()))
    return FisherRao(
        value=value,
        standard_error=standard_error(per_example) / (2 * value) if value else math.nan,
        per_example=per_example,
        notes=chosen.notes,
    )


def _growth(model: nn.Module, weights: dict[str, nn.Parameter], x: Tensor) -> tuple[Tensor, Tensor]:
    """Logits ``(n, k)`` and their derivative ``d f(x; t w) / dt`` at ``t = 1``.

    It differentiates ``u -> <u, df/dt>``, so that it works with every network that has a second
    derivative.
    """
    with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
        t = torch.ones((), dtype=x.dtype, device=x.device, requires_grad=True)
        grown = {name: weight.detach() * t for name, weight in weights.items()}
        logits: Tensor = functional_call(model, grown, (x,))
        u = torch.zeros_like(logits, requires_grad=True)
        (slope,) = torch.autograd.grad(logits, t, u, create_graph=True, materialize_grads=True)
        (moved,) = torch.autograd.grad(slope, u, materialize_grads=True)
    return logits.detach(), moved
