"""Gauss-Newton traces with every example's Jacobian written out."""

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel


def gauss_newton_trace(model, x, name):
    """``(1/n) sum_i Tr(J_i^T (diag(p_i) - p_i p_i^T) J_i)`` in one parameter."""
    parameter = model.get_parameter(name)
    total = 0.0
    for image in x:
        with sdpa_kernel(SDPBackend.MATH):
            logits = model(image[None])[0]
            rows = [
                torch.autograd.grad(z, parameter, retain_graph=True, materialize_grads=True)[0]
                for z in logits
            ]
        jacobian = torch.stack([row.flatten() for row in rows])
        p = logits.detach().softmax(0)
        total += float((jacobian.T @ (p.diag() - p.outer(p)) @ jacobian).trace())
    return total / len(x)
