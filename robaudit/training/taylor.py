"""Taylor expansion of a loss with randomised weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call, jvp

from robaudit.engine import evaluating
from robaudit.training.objectives import kl_divergence

if TYPE_CHECKING:
    from robaudit.types import Images


@dataclass(frozen=True)
class Taylor:
    """The first and second Taylor terms of ``E_u L(f_{w+u}(x), f_{w+u}(x'))`` added to the loss.

    ``eta E_u L(g'_x u, g'_x' u)`` and, with ``order`` 2, ``eta / 2 E_u L(u^T g''_x u, u^T g''_x'
    u)``, ``g_x(w)`` the logits and ``L(a, b) = KL(softmax a || softmax b)``, as in the zeroth term,
    which is the divergence of TRADES. Adversarial examples are computed at ``w + u``.

    Attributes:
        kind: ``exact``, these terms; ``last-layer``, those of the authors' public code
            (:func:`robaudit.training.last_layer.last_layer_terms`).
        order: 1 or 2.
        eta: 0.3 in the paper for the first order, 0.2 with the second.
        sigma: ``u ~ N(0, sigma^2)`` in every trained parameter.
        draws: number of ``u`` per step; examples are computed with the first.

    Source: G. Jin et al., "Randomized Adversarial Training via Taylor Expansion", CVPR 2023, Eq. 8
    and Algorithm 1.
    """

    kind: Literal["exact", "last-layer"] = "exact"
    order: Literal[1, 2] = 1
    eta: float = 0.3
    sigma: float = 0.01
    draws: int = 1

    def draw(self, model: nn.Module, generator: torch.Generator | None) -> dict[str, Tensor]:
        """``u`` by parameter name."""
        return {
            name: self.sigma
            * torch.randn(p.shape, generator=generator, device=p.device, dtype=p.dtype)
            for name, p in model.named_parameters()
            if p.requires_grad
        }

    def terms(self, model: nn.Module, x: Images, moved: Images, u: Mapping[str, Tensor]) -> Tensor:
        """Both terms for one ``u``, ``eta`` included, a scalar."""
        first, second = directional(model, torch.cat([x, moved]), u, self.order)
        total = self.eta * kl_divergence(*first.chunk(2)) / len(x)
        if second is not None:
            total = total + self.eta / 2 * kl_divergence(*second.chunk(2)) / len(x)
        return total


def directional(
    model: nn.Module, x: Images, u: Mapping[str, Tensor], order: Literal[1, 2]
) -> tuple[Tensor, Tensor | None]:
    """``g'(w) u`` and ``u^T g''(w) u`` of the logits at ``x``, each ``(n, k)``, differentiable.

    Jacobian-vector products in forward mode, applied twice for the second. In eval mode, since the
    expansion is that of the network that will be evaluated, example by example.
    """
    own: dict[str, Tensor] = {name: p for name, p in model.named_parameters() if name in u}
    along = {name: u[name] for name in own}

    def logits(weights: dict[str, Tensor]) -> Tensor:
        found: Tensor = functional_call(model, weights, (x,))
        return found

    def slope(weights: dict[str, Tensor]) -> Tensor:
        found: Tensor = jvp(logits, (weights,), (along,))[1]
        return found

    with evaluating(model):
        if order == 1:
            return slope(own), None
        found = jvp(slope, (own,), (along,))
        return found[0], found[1]
