"""Gauss-Newton traces of every layer, exactly and per example."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from robaudit.curvature.layers import Layer, output_positions, positions, recording
from robaudit.curvature.softmax import logit_curvature_factor

# Columns are backpropagated together as long as they hold fewer than this many numbers per layer.
_BATCHED_NUMBERS = 1 << 22


def gauss_newton_traces(model: nn.Module, layers: list[Layer], x: Tensor) -> Tensor:
    """``t_ik = sum_c ||J_ki^T s_ic||^2``, shape ``(n, layers)``, float64.

    ``J_ki`` is the Jacobian of the logits of example i in layer k's weights and ``s_ic`` the
    columns of a factor of ``diag(p_i) - p_i p_i^T``; the label does not enter. One forward pass,
    one backward pass to the layer *outputs* per column, and per-example gradient norms from the
    layer's inputs and output gradients without forming a gradient. For a network that is piecewise
    linear in each layer's weights, ``mean_i t_ik`` is the trace of that layer's Hessian.

    A layer that is called several times has its calls' gradients summed before the norm.

    Source: Wang et al., "Improving robust generalization by direct PAC-Bayesian bound
    minimization", CVPR 2023, Eq. 14-16, for the identity; per-example norms without gradients:
    Goodfellow, "Efficient per-example gradient computations", 2015.
    """
    with torch.enable_grad(), recording(layers) as record:
        logits = model(x)
    columns = logit_curvature_factor(logits.detach())
    used = [layer for layer in layers if layer.name in record.outputs]
    outputs = record.all_outputs()
    totals = torch.zeros(len(x), len(layers), dtype=torch.float64, device=x.device)
    largest = max(output.numel() for output in outputs)
    together = max(1, min(len(columns), _BATCHED_NUMBERS // largest))
    inputs = {layer.name: positions(layer, record.inputs[layer.name]) for layer in used}
    grams: dict[str, Tensor] = {}
    at = {layer.name: k for k, layer in enumerate(layers)}
    for start in range(0, len(columns), together):
        part = columns[start : start + together]
        gradients = _backpropagate(logits, outputs, part, last=start + together >= len(columns))
        taken = 0
        for layer in used:
            calls = len(record.outputs[layer.name])
            rows = output_positions(layer, gradients[taken : taken + calls], batched=True)
            taken += calls
            a = inputs[layer.name]
            totals[:, at[layer.name]] += _squared_norms(a, rows, grams, layer.name)
    return totals


def _backpropagate(
    logits: Tensor, outputs: list[Tensor], columns: Tensor, last: bool
) -> tuple[Tensor, ...]:
    gradients = torch.autograd.grad(
        logits, outputs, columns, is_grads_batched=True, retain_graph=not last, allow_unused=True
    )
    return tuple(
        output.new_zeros(len(columns), *output.shape) if gradient is None else gradient
        for gradient, output in zip(gradients, outputs, strict=True)
    )


def _squared_norms(a: Tensor, g: Tensor, grams: dict[str, Tensor], name: str) -> Tensor:
    """``sum_c ||A G_c^T||_F^2`` per example, by the cheaper of two equal expressions.

    Args:
        a: inputs ``(n, groups, p, T)``.
        g: output gradients ``(columns, n, groups, d, T)``.
    """
    columns, n, groups, d, T = g.shape
    p = a.shape[2]
    stacked = g.permute(1, 2, 0, 3, 4).reshape(n, groups, columns * d, T)
    if T * (p + columns * d) < p * columns * d:
        if name not in grams:
            grams[name] = a.transpose(2, 3) @ a
        products = grams[name] * (stacked.transpose(2, 3) @ stacked)
        return products.sum((1, 2, 3), dtype=torch.float64)
    return (stacked @ a.transpose(2, 3)).square_().sum((1, 2, 3), dtype=torch.float64)
