"""Products of the loss's curvature matrices with vectors."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from robaudit.curvature.pieces import Pieces
from robaudit.curvature.selection import chosen_parameters, leaves_of
from robaudit.engine.precision import Precision, arithmetic

Product = Callable[[Tensor], Tensor]


def hessian_product(
    model: nn.Module,
    x: Tensor | Pieces,
    y: Tensor,
    chunk: int | None = None,
    *,
    layers: Sequence[str] | None = None,
    precision: Precision = "fp32",
) -> Product:
    """``v -> H v``, ``H`` the Hessian of the mean cross-entropy in the chosen parameters.

    ``v`` is flat, ``(P,)``, in the order of ``model.parameters()``. Sums over chunks of examples
    are added, so that every example has the same weight. It differentiates the gradient again, with
    the math kernel for attention, since fused attention has no second derivative.

    Args:
        x: images ``(n, c, h, w)``, or the examples as they lie on the device.
        y: labels ``(n,)``.
        chunk: examples that are differentiated together; by default what suits the device.
        layers: see :func:`robaudit.curvature.selection.chosen_parameters`; by default all.
        precision: arithmetic of the passes; see :func:`robaudit.engine.precision.arithmetic`.
    """
    leaves = leaves_of(model, layers)
    tensors = list(leaves.values())
    pieces = x if isinstance(x, Pieces) else Pieces(x, y, tensors[0].device, chunk)

    def product(v: Tensor) -> Tensor:
        parts = _split(v, tensors)
        with arithmetic(precision):
            return _mean_over_pieces(
                model, leaves, pieces, lambda g: _flat(along(g, parts, tensors, keep=False))
            )

    return product


def gauss_newton_product(
    model: nn.Module,
    x: Tensor | Pieces,
    chunk: int | None = None,
    *,
    layers: Sequence[str] | None = None,
    precision: Precision = "fp32",
) -> Product:
    """``v -> G v``, ``G = (1/n) sum_i J_i^T (diag(p_i) - p_i p_i^T) J_i``, the Gauss-Newton matrix.

    It is positive semi-definite, equals the Fisher information, and does not depend on labels.
    ``J v`` comes from differentiating ``u -> J^T u``, so that every network that has a second
    derivative has this product.

    Args:
        x, chunk, layers, precision: as in :func:`hessian_product`.

    Source: Schraudolph, "Fast curvature matrix-vector products for second-order gradient descent",
    Neural Computation 14, 2002.
    """
    leaves = leaves_of(model, layers)
    tensors = list(leaves.values())
    if not isinstance(x, Pieces):
        x = Pieces(x, torch.zeros(len(x)), tensors[0].device, chunk)
    pieces = x

    def product(v: Tensor) -> Tensor:
        parts = _split(v, tensors)

        def term(images: Tensor, _: Tensor) -> Tensor:
            with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
                logits = functional_call(model, leaves, (images,))
                u = torch.zeros_like(logits, requires_grad=True)
                back = torch.autograd.grad(
                    logits, tensors, u, create_graph=True, materialize_grads=True
                )
                (moved,) = along(back, parts, [u], keep=False)
                # In float64: where p is near one, rounding of 1 - p dominates.
                p, moved = logits.detach().double().softmax(1), moved.double()
                bent = (p * (moved - (p * moved).sum(1, keepdim=True))).to(v)
                return _flat(torch.autograd.grad(logits, tensors, bent, materialize_grads=True))

        with arithmetic(precision):
            return pieces.sum(term) / len(pieces.x)

    return product


def block_products(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    v: Tensor,
    chunk: int | None = None,
    *,
    layers: Sequence[str] | None = None,
) -> Tensor:
    """``(H_1 v_1, H_2 v_2, ...)``, ``(P,)``: each tensor's block times its part of ``v``.

    One backward pass for all gradients, then one more per parameter tensor.
    """
    leaves = leaves_of(model, layers)
    tensors = list(leaves.values())
    parts = _split(v, tensors)

    def blocks(gradients: Sequence[Tensor]) -> Tensor:
        own = zip(gradients, parts, tensors, strict=True)
        return _flat([along([g], [part], [leaf])[0] for g, part, leaf in own])

    pieces = Pieces(x, y, tensors[0].device, chunk)
    return _mean_over_pieces(model, leaves, pieces, blocks)


def relative_scale(model: nn.Module, layers: Sequence[str] | None = None) -> Tensor:
    """The diagonal of ``D``, ``(P,)``: for every entry the norm of its tensor.

    ``D H D`` is invariant under rescaling of layers that does not change the function.
    """
    chosen = chosen_parameters(model, layers).values()
    return torch.cat([p.detach().norm().expand(p.numel()) for p in chosen])


def along(
    gradients: Sequence[Tensor],
    directions: Sequence[Tensor],
    tensors: Sequence[Tensor],
    *,
    keep: bool = True,
) -> Sequence[Tensor]:
    """``d <gradients, directions> / d tensors``; zero where there is no curvature.

    Args:
        keep: the gradients' graph, for further derivatives.
    """
    moving = [(g, v) for g, v in zip(gradients, directions, strict=True) if g.requires_grad]
    if not moving:
        return [torch.zeros_like(tensor) for tensor in tensors]
    return torch.autograd.grad(
        [g for g, _ in moving],
        tensors,
        [v for _, v in moving],
        retain_graph=keep,
        materialize_grads=True,
    )


def _split(v: Tensor, leaves: Iterable[Tensor]) -> list[Tensor]:
    leaves = list(leaves)
    pieces = torch.split(v, [leaf.numel() for leaf in leaves])
    return [piece.view_as(leaf) for piece, leaf in zip(pieces, leaves, strict=True)]


def _mean_over_pieces(
    model: nn.Module,
    leaves: dict[str, Tensor],
    pieces: Pieces,
    term: Callable[[Sequence[Tensor]], Tensor],
) -> Tensor:
    """The sum over pieces of ``term`` of the cross-entropy's gradients, over the examples."""
    tensors = list(leaves.values())

    def of_piece(images: Tensor, labels: Tensor) -> Tensor:
        with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
            logits = functional_call(model, leaves, (images,))
            loss = F.cross_entropy(logits, labels, reduction="sum")
            return term(
                torch.autograd.grad(loss, tensors, create_graph=True, materialize_grads=True)
            )

    return pieces.sum(of_piece) / len(pieces.x)


def _flat(pieces: Sequence[Tensor]) -> Tensor:
    return torch.cat([piece.reshape(-1) for piece in pieces])
