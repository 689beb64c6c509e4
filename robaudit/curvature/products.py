"""Products of the loss's Hessian with vectors over all parameters."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

Product = Callable[[Tensor], Tensor]


def hessian_product(model: nn.Module, x: Tensor, y: Tensor, chunk: int = 256) -> Product:
    """``v -> H v``, ``H`` the Hessian of the mean cross-entropy in all parameters.

    ``v`` is flat, ``(P,)``, in the order of ``model.parameters()``. Examples are streamed in chunks
    whose sums are added, so that every example weighs the same. Reverse over reverse, with
    attention under the math kernel, since fused attention has no second derivative.
    """
    params = {name: p.detach().requires_grad_() for name, p in model.named_parameters()}
    leaves = list(params.values())
    sizes = [leaf.numel() for leaf in leaves]

    def product(v: Tensor) -> Tensor:
        parts = [
            piece.view_as(leaf) for piece, leaf in zip(torch.split(v, sizes), leaves, strict=True)
        ]
        total = torch.zeros_like(v)
        for images, labels in zip(torch.split(x, chunk), torch.split(y, chunk), strict=True):
            with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
                logits = functional_call(model, params, (images.to(v.device),))
                loss = F.cross_entropy(logits, labels.to(v.device), reduction="sum")
                gradients = torch.autograd.grad(
                    loss, leaves, create_graph=True, materialize_grads=True
                )
                products = torch.autograd.grad(gradients, leaves, parts, materialize_grads=True)
            total += torch.cat([piece.reshape(-1) for piece in products])
        return total / len(x)

    return product


def relative_scale(model: nn.Module) -> Tensor:
    """``D``'s diagonal, ``(P,)``: for every entry the norm of the tensor it belongs to.

    ``D H D`` does not change when layers are rescaled without changing the function: the tensor's
    norm grows as its curvature falls.
    """
    return torch.cat([p.detach().norm().expand(p.numel()) for p in model.parameters()])
