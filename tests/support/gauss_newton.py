"""The dense Gauss-Newton matrix in float64, by the definition."""

import torch
from torch.func import functional_call, jacrev


def dense_gauss_newton(model, x, names=None):
    """``(1/n) sum_i J_i^T (diag(p_i) - p_i p_i^T) J_i`` in the named parameters, ``(P, P)``."""
    everything = {name: p.detach() for name, p in model.named_parameters()}
    chosen = {name: everything[name] for name in (names or everything)}
    jacobians = jacrev(lambda params: functional_call(model, {**everything, **params}, (x,)))(
        chosen
    )
    J = torch.cat([jacobians[name].flatten(2) for name in chosen], dim=2)
    p = model(x).detach().softmax(1)
    curvature = p.diag_embed() - p[:, :, None] * p[:, None, :]
    return torch.einsum("ikp,ikl,ilq->pq", J, curvature, J) / len(x)
