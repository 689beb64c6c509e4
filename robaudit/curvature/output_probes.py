"""Unbiased Hessian traces of every layer for smooth networks, by probes in layer-output space."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from robaudit.curvature.layers import Layer, output_positions, positions, recording
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

    Layer k's output is linear in its weight, so ``H_k`` is the output Hessian seen through the
    layer's input. Per example draw ``V = r s^T`` (r, s Rademacher; rank one keeps the draw as
    small as a row and a column of the weight), ``d_k = V * a_k`` the layer applied to its own input
    with weights V, one Hessian-vector product in all layer outputs at once,
    ``t_k = <d_k, (H d)_k>``. Terms between layers have mean zero, since
    their draws are independent.

    Fused attention has no second derivative, so attention runs under the math kernel.
    """
    with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH), recording(layers) as record:
        loss = F.cross_entropy(model(x), y, reduction="sum")
        outputs = record.all_outputs()
        gradients = torch.autograd.grad(loss, outputs, create_graph=True)
        directions: list[Tensor] = []
        used = [layer for layer in layers if layer.name in record.outputs]
        draws = [generator(seed, "output-probe", example, probe) for example in index.tolist()]
        for layer in used:
            directions += _directions(
                layer, record.inputs[layer.name], record.outputs[layer.name], draws
            )
        along = sum((g * d).sum() for g, d in zip(gradients, directions, strict=True))
        assert isinstance(along, Tensor)
        products = torch.autograd.grad(along, outputs, allow_unused=True)
    samples = torch.zeros(len(x), len(layers), dtype=torch.float64, device=x.device)
    at = {layer.name: k for k, layer in enumerate(layers)}
    taken = 0
    for layer in used:
        for _ in record.outputs[layer.name]:
            product, direction = products[taken], directions[taken]
            taken += 1
            if product is not None:
                samples[:, at[layer.name]] += (product * direction).flatten(1).double().sum(1)
    return samples


def _directions(
    layer: Layer, inputs: list[Tensor], outputs: list[Tensor], draws: list[torch.Generator]
) -> list[Tensor]:
    """``V * a`` in the shape of each call's output; one V per example for all calls."""
    a = positions(layer, inputs)
    groups, fan_in = a.shape[1], a.shape[2]
    fan_out = layer.weight.shape[0] // groups
    signs = torch.stack(
        [torch.randint(2, (groups, fan_in + fan_out), generator=draw) * 2 - 1 for draw in draws]
    ).to(a)
    row = torch.einsum("ngp,ngpt->ngt", signs[:, :, :fan_in], a)
    columns = signs[:, :, fan_in:, None] * row[:, :, None, :]
    directions, start = [], 0
    for output in outputs:
        T = output_positions(layer, [output]).shape[-1]
        part = columns[..., start : start + T]
        start += T
        if isinstance(layer.module, nn.Linear):
            directions.append(part[:, 0].transpose(1, 2).reshape(output.shape))
        else:
            directions.append(part.flatten(1, 2).reshape(output.shape))
    return directions
