"""Unbiased Hessian traces of every layer of smooth networks, by probes in layer-output space."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from robaudit.curvature.factors import channels_last, fixed, groups_of
from robaudit.curvature.layers import Call, Layer, Normalisation, recording
from robaudit.engine import generator


def hessian_trace_samples(
    model: nn.Module,
    layers: list[Layer],
    x: Tensor,
    y: Tensor,
    index: Tensor,
    probe: int,
    seed: int,
) -> Tensor:
    """One draw of ``t_ik`` per example and layer, ``(n, layers)`` float64, ``E t_ik = Tr(H_ki)``.

    Layer k's output is linear in its weight, so ``H_k`` follows from the Hessian in the output and
    the layer's input. Per example draw ``V = r s^T`` (r, s Rademacher; rank one keeps the draw as
    small as a row and a column of the weight), ``d_k = V * a_k`` the layer applied to its own input
    with weights V, one Hessian-vector product in all layer outputs at once,
    ``t_k = <d_k, (H d)_k>``. Terms between layers have mean zero, since their draws are
    independent.

    Where a weight is used several times, it also changes its later inputs: ``W + s V`` shifts the
    output by ``s V * a(s)``, whose second derivative adds ``2 <g, V * (da / do) d>``.

    Fused attention has no second derivative, so attention runs under the math kernel.
    """
    with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH), recording(layers) as record:
        loss = F.cross_entropy(model(x), y, reduction="sum")
        outputs = record.all_outputs()
        gradients = torch.autograd.grad(
            loss, outputs, create_graph=True, allow_unused=True, materialize_grads=True
        )
        directions: list[Tensor] = []
        draws = [generator(seed, "output-probe", example, probe) for example in index.tolist()]
        used = [(k, layer) for k, layer in enumerate(layers) if record.of(layer)]
        drawn = {layer.name: _signs(record.of(layer)[0], draws) for _, layer in used}
        for name, calls in record.calls.items():
            directions += [_direction(call, *drawn[name], len(calls) > 1) for call in calls]
        along = torch.stack(
            [
                (g * d.detach() + 2 * g.detach() * d).sum() if d.requires_grad else (g * d).sum()
                for g, d in zip(gradients, directions, strict=True)
            ]
        ).sum()
        products = torch.autograd.grad(along, outputs, allow_unused=True)
    samples = torch.zeros(len(x), len(layers), dtype=torch.float64, device=x.device)
    at = {layer.name: k for k, layer in used}
    owners = [name for name, calls in record.calls.items() for _ in calls]
    for name, product, direction in zip(owners, products, directions, strict=True):
        if product is not None:
            samples[:, at[name]] += (product * direction.detach()).flatten(1).double().sum(1)
    return samples


def _signs(call: Call, draws: Sequence[torch.Generator]) -> tuple[Tensor, Tensor]:
    """``r`` ``(n, groups, p)`` on the layer's input and ``s`` ``(n, groups, d)`` on its output."""
    tensor: Tensor = getattr(call.module, call.part)
    groups = groups_of(call)
    whole = call.part == "weight" and not isinstance(call.module, Normalisation)
    d, p = (len(tensor), tensor[0].numel()) if whole else (tensor.numel(), 1)
    d //= groups
    signs = torch.stack([torch.randint(2, (groups, p + d), generator=g) * 2 - 1 for g in draws])
    r, s = signs.to(tensor).split([p, d], dim=2)  # type: ignore[no-untyped-call]
    return r, s


def _direction(call: Call, r: Tensor, s: Tensor, attached: bool) -> Tensor:
    """``V * a`` in the shape of the call's output, ``V = s r^T``."""
    if not attached:
        call = Call(call.module, call.input.detach(), call.output, call.part)
    row = torch.einsum("ngp,ngpt->ngt", r, fixed([call]))
    flat = (s[..., None] * row[:, :, None, :]).flatten(1, 2)
    ordered = flat.transpose(1, 2) if channels_last(call.module) else flat
    return ordered.reshape(call.output.shape)
