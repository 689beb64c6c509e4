"""Is a network piecewise linear in each layer's output? Then Hessian and Gauss-Newton agree."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from robaudit.curvature.layers import Layer, recording
from robaudit.engine import generator

# Their curvature can vanish in float32 where they saturate; the numbers alone would not tell.
_SMOOTH = (
    nn.SiLU, nn.GELU, nn.Mish, nn.ELU, nn.CELU, nn.SELU, nn.Softplus, nn.Sigmoid, nn.Tanh,
    nn.LogSigmoid, nn.Softsign, nn.Softmax, nn.Hardswish, nn.LayerNorm, nn.GroupNorm,
    nn.MultiheadAttention, nn.InstanceNorm1d, nn.InstanceNorm2d,
)  # fmt: skip


def bent_layers(model: nn.Module, layers: list[Layer], x: Tensor, seed: int = 0) -> list[str]:
    """Why the exact Hessian trace is not the Gauss-Newton one; empty where it is.

    Checked on the network that really runs, so that an activation called as a function is not
    missed: for a random combination ``f = <u, z>`` of the logits, the second directional derivative
    ``d_k^T (d^2 f / d o_k^2) d_k`` in each layer's output is zero if and only if f has no curvature
    in that direction; for ReLU-like networks automatic differentiation gives zero exactly. Known
    smooth modules count as bent whatever the number says, and so does a layer that is called more
    than once, since the network is then no longer linear in its weight.

    Args:
        x: a few images; eight are enough.
    """
    smooth = sorted(
        {type(module).__name__ for module in model.modules() if isinstance(module, _SMOOTH)}
    )
    if smooth:
        return [f"the network has {', '.join(smooth)}"]
    with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH), recording(layers) as record:
        logits = model(x)
        repeated = [name for name, calls in record.calls.items() if len(calls) > 1]
        if repeated:
            return [f"layer {name} is called more than once" for name in repeated]
        draw = generator(seed, "linearity")
        u = torch.randn(logits.shape, generator=draw).to(logits)
        outputs = record.all_outputs()
        gradients = torch.autograd.grad(
            (logits * u).sum(), outputs, create_graph=True, allow_unused=True
        )
        curves = [
            (name, output, gradient, torch.randn(output.shape, generator=draw).to(output))
            for name, output, gradient in zip(record.calls, outputs, gradients, strict=True)
            if gradient is not None and gradient.requires_grad
        ]
        # A network without curvature in all outputs jointly has none in any, and most have none.
        if not _second(curves, [output for _, output, _, _ in curves]):
            return []
        return [
            f"the network is curved in the output of layer {curve[0]}"
            for curve in curves
            if _second([curve], [curve[1]])
        ]


def _second(curves: list[tuple[str, Tensor, Tensor, Tensor]], outputs: list[Tensor]) -> bool:
    """Is ``d^T (d^2 f / d o^2)`` anything but zero, ``d`` running through the given layers?"""
    if not curves:
        return False
    along = torch.stack([(gradient * d).sum() for _, _, gradient, d in curves]).sum()
    found = torch.autograd.grad(along, outputs, retain_graph=True, allow_unused=True)
    return any(second is not None and bool(second.count_nonzero()) for second in found)
