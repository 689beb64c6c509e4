"""Products of the loss's curvature matrices with vectors."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from robaudit.curvature.pieces import Pieces
from robaudit.curvature.selection import chosen_parameters, leaves_of
from robaudit.engine import device_of
from robaudit.engine.precision import Precision, arithmetic
from robaudit.engine.several import replicas

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
    pieces = x if isinstance(x, Pieces) else Pieces(x, y, device_of(model), chunk)
    places = _places(model, layers, pieces)

    def product(v: Tensor) -> Tensor:
        parts = [place.split(v) for place in places]

        def bent(at: int, gradients: Sequence[Tensor]) -> Tensor:
            return _flat(along(gradients, parts[at], places[at].tensors, keep=False))

        with arithmetic(precision):
            return _mean_over_pieces(places, pieces, bent)

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
    if not isinstance(x, Pieces):
        x = Pieces(x, torch.zeros(len(x)), device_of(model), chunk)
    pieces = x
    places = _places(model, layers, pieces)

    def product(v: Tensor) -> Tensor:
        parts = [place.split(v) for place in places]

        def term(at: int, images: Tensor, _: Tensor) -> Tensor:
            logits, tensors = places[at].logits(images), places[at].tensors
            u = torch.zeros_like(logits, requires_grad=True)
            back = torch.autograd.grad(
                logits, tensors, u, create_graph=True, materialize_grads=True
            )
            (moved,) = along(back, parts[at], [u], keep=False)
            # In float64: where p is near one, rounding of 1 - p dominates.
            p, moved = logits.detach().double().softmax(1), moved.double()
            bent = (p * (moved - (p * moved).sum(1, keepdim=True))).to(logits.device, v.dtype)
            return _flat(torch.autograd.grad(logits, tensors, bent, materialize_grads=True))

        with arithmetic(precision):
            return _mean(places, pieces, term)

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
    pieces = Pieces(x, y, device_of(model), chunk)
    places = _places(model, layers, pieces)
    parts = [place.split(v) for place in places]

    def blocks(at: int, gradients: Sequence[Tensor]) -> Tensor:
        own = zip(gradients, parts[at], places[at].tensors, strict=True)
        return _flat([along([g], [part], [leaf])[0] for g, part, leaf in own])

    return _mean_over_pieces(places, pieces, blocks)


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


class _Place:
    """A network on one device, and its chosen parameters as tensors to differentiate in."""

    def __init__(self, network: nn.Module, layers: Sequence[str] | None) -> None:
        self._network, self._leaves = network, leaves_of(network, layers)
        self.tensors = list(self._leaves.values())
        self.device = self.tensors[0].device

    def logits(self, images: Tensor) -> Tensor:
        found: Tensor = functional_call(self._network, self._leaves, (images,))
        return found

    def split(self, v: Tensor) -> list[Tensor]:
        """A flat vector in the tensors' shapes, on their device."""
        parts = torch.split(v.to(self.device), [tensor.numel() for tensor in self.tensors])
        return [part.view_as(own) for part, own in zip(parts, self.tensors, strict=True)]


def _places(model: nn.Module, layers: Sequence[str] | None, pieces: Pieces) -> list[_Place]:
    """The network on each of its devices; see :func:`robaudit.engine.spread`."""
    return [_Place(network, layers) for network in replicas(model, pieces.x)]


def _mean_over_pieces(
    places: Sequence[_Place],
    pieces: Pieces,
    term: Callable[[int, Sequence[Tensor]], Tensor],
) -> Tensor:
    """The sum over pieces of ``term`` of the cross-entropy's gradients, over the examples."""

    def of_piece(at: int, images: Tensor, labels: Tensor) -> Tensor:
        loss = F.cross_entropy(places[at].logits(images), labels, reduction="sum")
        tensors = places[at].tensors
        return term(
            at, torch.autograd.grad(loss, tensors, create_graph=True, materialize_grads=True)
        )

    return _mean(places, pieces, of_piece)


def _mean(
    places: Sequence[_Place], pieces: Pieces, term: Callable[[int, Tensor, Tensor], Tensor]
) -> Tensor:
    # Out here: which kernel attention has is a setting of the process, not of a thread.
    with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
        total = pieces.sum([place.device for place in places], term)
    return total / len(pieces.x)


def _flat(pieces: Sequence[Tensor]) -> Tensor:
    return torch.cat([piece.reshape(-1) for piece in pieces])
