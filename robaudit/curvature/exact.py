"""Gauss-Newton traces of every layer, exactly and per example."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext

import torch
from torch import Tensor, nn

from robaudit.curvature.factors import fixed, moving
from robaudit.curvature.layers import Layer, Record, recording
from robaudit.curvature.sweep import Sweep
from robaudit.engine.precision import Precision, arithmetic

# Cost of writing and reading a number, in multiplications of a matrix product.
_TOUCH = 16

Factor = Callable[[Tensor], Tensor]


def gauss_newton_traces(
    model: nn.Module,
    layers: list[Layer],
    x: Tensor,
    factor: Factor,
    together: int,
    precision: Precision = "fp32",
    seen: Callable[[Sweep, Record], None] | None = None,
    *,
    beside: bool = False,
) -> Tensor:
    """``t_ik = sum_c ||J_ki^T s_ic||^2``, shape ``(n, layers)``, float64.

    ``J_ki`` is the Jacobian of the logits of example i in layer k's weights and ``s_ic`` the
    columns of a factor of ``diag(p_i) - p_i p_i^T``; labels are not needed. It takes one forward
    pass and one backward pass to the layer *outputs* per column. Norms of per-example gradients are
    computed from the layer's inputs and output gradients without forming the gradients. For a
    network that is piecewise linear in each layer's weights, ``mean_i t_ik`` is the trace of that
    layer's Hessian.

    With :func:`~robaudit.curvature.softmax.logit_curvature_factor` the sum is the exact trace; with
    :func:`~robaudit.curvature.softmax.mixed_columns` its expectation is.

    Args:
        factor: ``logits (n, k) -> columns (c, n, k)``.
        together: columns per backward sweep.
        precision: of the backward passes, ``fp32`` for the network's own type. Products are summed
            in float32. The forward pass, and so which units are active, is not rounded.
        seen: called with the graph and the calls.
        beside: other threads run, whose forward passes must not be in TF32: it is a setting of the
            process, and stays as it is.

    For a layer that is called several times, the gradients of the calls are summed before the norm.

    Source: Wang et al., "Improving robust generalization by direct PAC-Bayesian bound
    minimization", CVPR 2023, Eq. 14-16, for the identity; per-example norms without gradients:
    Goodfellow, "Efficient per-example gradient computations", 2015.
    """
    if x.dim() == 4:  # convolutions and copies of patches are fastest in this memory order
        x = x.contiguous(memory_format=torch.channels_last)
    with torch.enable_grad(), recording(layers) as record:
        logits = model(x)
    start = factor(logits.detach())
    if precision == "bf16":
        start = start.bfloat16()
    totals = torch.zeros(len(x), len(layers), dtype=torch.float64, device=x.device)
    at = {layer.name: k for k, layer in enumerate(layers)}
    owners = [(name, call) for name, calls in record.calls.items() for call in range(len(calls))]
    inputs: dict[str, Tensor] = {}
    grams: dict[str, Tensor] = {}
    waiting: dict[str, dict[int, Tensor]] = {name: {} for name in record.calls}

    def finish(name: str, part: int) -> None:
        calls, gradients = record.calls[name], waiting[name]
        complete = [
            gradients[i] if i in gradients else start.new_zeros(part, *call.output.shape)
            for i, call in enumerate(calls)
        ]
        gradients.clear()
        a = inputs.get(name)
        if a is None:
            a = fixed(calls).to(start.dtype)
        if together < len(start):
            inputs[name] = a
        totals[:, at[name]] += _squared_norms(a, moving(calls, complete), grams, name)

    def deliver(target: int, gradient: Tensor) -> None:
        name, call = owners[target]
        waiting[name][call] = gradient
        if len(waiting[name]) == len(record.calls[name]):
            finish(name, len(gradient))

    with torch.no_grad(), nullcontext() if beside else arithmetic(precision):
        sweep = Sweep(logits, record.all_outputs())
        if seen is not None:
            seen(sweep, record)
        for part in torch.split(start, together):
            sweep(part, deliver)
            for name in [name for name, gradients in waiting.items() if gradients]:
                finish(name, len(part))  # the logits do not depend on some of its calls
    return totals


def _squared_norms(a: Tensor, g: Tensor, grams: dict[str, Tensor], name: str) -> Tensor:
    """``sum_c ||A G_c^T||_F^2`` per example, by the cheaper of two equal expressions.

    Args:
        a: inputs ``(n, groups, p, T)``.
        g: output gradients ``(columns, n, groups, d, T)``.
    """
    columns, n, groups, d, T = g.shape
    p, rows = a.shape[2], columns * d
    wide = torch.promote_types(g.dtype, torch.float32)
    stacked = g.permute(1, 2, 4, 0, 3).reshape(n, groups, T, rows)
    if T * T * (p + rows + _TOUCH) < p * rows * (T + _TOUCH):
        if name not in grams:
            grams[name] = (a.transpose(2, 3) @ a).to(wide)
        squares = grams[name] * (stacked @ stacked.transpose(2, 3)).to(wide)
    else:
        squares = (a @ stacked).to(wide).square_()
    return squares.sum(3).sum((1, 2), dtype=torch.float64)
