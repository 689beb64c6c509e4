"""Whether a network is piecewise linear in its layers' outputs, so that Hessian and Gauss-Newton
matrix agree.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from robaudit.curvature.layers import Layer, recording
from robaudit.curvature.per_example import wanting_gradients
from robaudit.curvature.products import along
from robaudit.curvature.targets import Targets
from robaudit.engine import generator

# Where these saturate their curvature vanishes in float32, and numbers alone would not show it.
_SMOOTH = (
    *(nn.SiLU, nn.GELU, nn.Mish, nn.ELU, nn.CELU, nn.SELU, nn.Softplus, nn.Sigmoid, nn.Tanh),
    *(nn.LogSigmoid, nn.Softsign, nn.Softmax, nn.Hardswish, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm),
    *(nn.MultiheadAttention, nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d),
)


def smooth_modules(model: nn.Module) -> list[str]:
    """The classes of modules that are known to be smooth."""
    return sorted(
        {type(module).__name__ for module in model.modules() if isinstance(module, _SMOOTH)}
    )


def bent_layers(model: nn.Module, targets: Targets, x: Tensor, seed: int = 0) -> list[str]:
    """Why the exact Hessian trace differs from the Gauss-Newton trace; empty if it does not.

    For a random combination ``f = <u, z>`` of the logits, the second directional derivative ``d_k^T
    (d^2 f / d o_k^2) d_k`` in each layer's output is zero if and only if f has no curvature in that
    direction; for ReLU-like networks automatic differentiation gives exactly zero. As the network
    itself is run, activations called as functions are included. The weight is tested instead of the
    output for layers that are called more than once (in parallel branches the network stays linear
    in it, in sequence it does not) and for parameters that are measured one example at a time.
    Known smooth modules count as curved in any case.

    Args:
        model: frozen.
        targets: the weights to measure.
        x: a few images: some that are drawn at random, and later all those on which
            :func:`~robaudit.curvature.linear_pieces.linear_pieces` does not hold.
        seed: of the directions.
    """
    if smooth := smooth_modules(model):
        return [f"the network has {', '.join(smooth)}"]
    repeated, found = _in_outputs(model, targets.recorded, x, seed)
    for name in _in_weights(model, {layer.name: layer.weight for layer in repeated}, x, seed):
        found.append(f"layer {name} is called more than once")
    for name in _in_weights(model, targets.alone, x, seed):
        found.append(f"the network is curved in {name}")
    return found


def _in_outputs(
    model: nn.Module, layers: list[Layer], x: Tensor, seed: int
) -> tuple[list[Layer], list[str]]:
    """The layers that are called more than once, and the outputs in which there is curvature."""
    with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH), recording(layers) as record:
        logits = model(x)
        repeated = [layer for layer in layers if len(record.of(layer)) > 1]
        u, draw = _combination(logits, seed)
        owned = [(name, call.output) for name, calls in record.calls.items() for call in calls]
        outputs = [output for _, output in owned]
        if not outputs or not logits.requires_grad:
            return repeated, []
        gradients = torch.autograd.grad(
            (logits * u).sum(), outputs, create_graph=True, materialize_grads=True
        )
        curves = [
            (name, gradient, torch.randn(output.shape, generator=draw).to(output), output)
            for (name, output), gradient in zip(owned, gradients, strict=True)
            if gradient.requires_grad
        ]
        # Without curvature in all outputs jointly there is none in any: the usual case.
        if not curves or not _curved(*zip(*(curve[1:] for curve in curves), strict=True)):
            return repeated, []
        bent = dict.fromkeys(name for name, g, d, output in curves if _curved([g], [d], [output]))
        return repeated, [f"the network is curved in the output of layer {name}" for name in bent]


def _in_weights(model: nn.Module, weights: Mapping[str, Tensor], x: Tensor, seed: int) -> list[str]:
    """The weights in which the network has curvature, one at a time."""
    leaves = {name: weight for name, weight in weights.items() if weight.is_leaf}
    bent = [name for name in weights if name not in leaves]  # computed at each call: not testable
    if not leaves:
        return bent
    with wanting_gradients(leaves):
        logits = model(x)
        u, draw = _combination(logits, seed)
        if not logits.requires_grad:
            return bent
        gradients = torch.autograd.grad(
            (logits * u).sum(), list(leaves.values()), create_graph=True, materialize_grads=True
        )
        for (name, weight), gradient in zip(leaves.items(), gradients, strict=True):
            direction = torch.randn(weight.shape, generator=draw).to(weight)
            if _curved([gradient], [direction], [weight]):
                bent.append(name)
    return bent


def _combination(logits: Tensor, seed: int) -> tuple[Tensor, torch.Generator]:
    draw = generator(seed, "linearity")
    return torch.randn(logits.shape, generator=draw).to(logits), draw


def _curved(
    gradients: Sequence[Tensor], directions: Sequence[Tensor], outputs: Sequence[Tensor]
) -> bool:
    """Whether ``d^T (d^2 f / d o^2)`` is nonzero."""
    return any(bool(second.count_nonzero()) for second in along(gradients, directions, outputs))
