"""Dense Hessians in float64, the slow and certain way: the judge of every curvature test."""

import torch
from torch.func import functional_call
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel


def mean_loss(model, x, y):
    names = dict(model.named_parameters())

    def loss(params):
        return F.cross_entropy(functional_call(model, {**names, **params}, (x,)), y)

    return loss


def dense_block(model, x, y, name):
    """The Hessian of the mean cross-entropy in one parameter, ``(numel, numel)``."""
    parameter = dict(model.named_parameters())[name].detach()
    loss = mean_loss(model, x, y)
    with sdpa_kernel(SDPBackend.MATH):
        hessian = torch.autograd.functional.hessian(lambda w: loss({name: w}), parameter)
    return hessian.reshape(parameter.numel(), parameter.numel())


def dense_full(model, x, y):
    """The Hessian in all parameters, in ``named_parameters`` order."""
    named = {name: p.detach() for name, p in model.named_parameters()}
    flat = torch.cat([p.reshape(-1) for p in named.values()])
    loss = mean_loss(model, x, y)

    def of(vector):
        params, start = {}, 0
        for name, p in named.items():
            params[name] = vector[start : start + p.numel()].reshape(p.shape)
            start += p.numel()
        return loss(params)

    with sdpa_kernel(SDPBackend.MATH):
        return torch.autograd.functional.hessian(of, flat)


def dense_spectrum(model, x, y, scale=None):
    """Eigenvalues of the whole Hessian, or of ``D H D`` with ``scale`` as D; descending."""
    dense = dense_full(model, x, y)
    if scale is not None:
        dense = scale[:, None] * dense * scale
    return torch.linalg.eigvalsh(dense).flip(0)
