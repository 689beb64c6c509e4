"""Factors of a layer's per-example gradient.

With ``T`` positions, the gradient of one example in the weight is ``sum_t D_t F_t^T`` per group:
``F`` depends on the layer's input, ``D`` on the output gradient. For a linear layer the
positions are tokens, ``F`` its inputs and ``D`` the output gradients; for a convolution they are
output pixels and ``F`` unfolded patches. A bias has ones for ``F``, and a normalisation's scale the
normalised input, with every channel a separate group.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.instancenorm import _InstanceNorm

from robaudit.curvature.layers import Call, Convolution, Normalisation


def fixed(calls: Sequence[Call]) -> Tensor:
    """``F``, ``(n, groups, p, T)``, with the positions of all calls concatenated."""
    return _joined([_fixed(call) for call in calls])


def moving(calls: Sequence[Call], gradients: Sequence[Tensor]) -> Tensor:
    """``D``, ``(columns, n, groups, d, T)``, of output gradients ``(columns, *output.shape)``."""
    return _joined([position_matrix(call, g, 2) for call, g in zip(calls, gradients, strict=True)])


def position_matrix(call: Call, rows: Tensor, lead: int) -> Tensor:
    """Channels and positions: ``(lead dims, ...) -> (lead dims, groups, channels / groups, T)``.

    Args:
        rows: in the layout of the call's output or input.
        lead: number of dimensions before channels and positions.
    """
    module = call.module
    if channels_last(module):
        last = len(getattr(module, "normalized_shape", (1,)))
        flat = rows.flatten(-last)
        flat = flat.unsqueeze(lead) if flat.dim() == lead + 1 else flat.flatten(lead, -2)
        flat = flat.transpose(-1, -2)
    else:
        flat = rows.flatten(lead + 1) if rows.dim() > lead + 1 else rows.unsqueeze(-1)
    return flat.reshape(*flat.shape[:lead], groups_of(call), -1, flat.shape[-1])


def channels_last(module: nn.Module) -> bool:
    """Whether channels come after positions."""
    return isinstance(module, nn.Linear | nn.LayerNorm | nn.RMSNorm)


def groups_of(call: Call) -> int:
    """The number of blocks of the layer's map that share no weight."""
    module = call.module
    if call.part == "bias" or isinstance(module, nn.Linear):
        return 1
    return module.weight.numel() if isinstance(module, Normalisation) else module.groups


def _fixed(call: Call) -> Tensor:
    module, a = call.module, call.input
    if call.part == "bias":
        T = position_matrix(call, call.output.detach()[:1], 1).shape[-1]
        return a.new_ones(1, 1, 1, T).expand(len(a), 1, 1, T)
    if isinstance(module, Normalisation):
        return position_matrix(call, _normalised(module, a), 1)
    if isinstance(module, nn.Linear):
        return position_matrix(call, a, 1)
    return _patches(module, a)


def _normalised(module: Normalisation, a: Tensor) -> Tensor:
    """The module's output without its scale and bias."""
    if isinstance(module, nn.LayerNorm):
        return F.layer_norm(a, module.normalized_shape, eps=module.eps)
    if isinstance(module, nn.RMSNorm):
        return F.rms_norm(a, module.normalized_shape, eps=module.eps)
    if isinstance(module, nn.GroupNorm):
        return F.group_norm(a, module.num_groups, eps=module.eps)
    mean, variance = module.running_mean, module.running_var
    if isinstance(module, _InstanceNorm):
        return F.instance_norm(a, mean, variance, use_input_stats=mean is None, eps=module.eps)
    return F.batch_norm(a, mean, variance, eps=module.eps)


def _joined(calls: list[Tensor]) -> Tensor:
    return calls[0] if len(calls) == 1 else torch.cat(calls, dim=-1)


def _patches(module: Convolution, a: Tensor) -> Tensor:
    """``(n, channels, *size) -> (n, groups, channels / groups * prod(kernel), T)``."""
    mode = "constant" if module.padding_mode == "zeros" else module.padding_mode
    # Pairs (before, after) from the last dimension to the first, as torch's own forward pads;
    # unlike module.padding it also resolves padding="same".
    pads: list[int] = list(module._reversed_padding_repeated_twice)
    views, dims = F.pad(a, pads, mode=mode), len(module.kernel_size)
    for dim in range(dims):
        kernel, dilation = int(module.kernel_size[dim]), int(module.dilation[dim])
        reach = dilation * (kernel - 1) + 1
        views = views.unfold(2 + dim, reach, int(module.stride[dim]))[..., ::dilation]
    views = views.reshape(len(a), module.groups, -1, *views.shape[2:])
    positions, kernels = range(3, 3 + dims), range(3 + dims, 3 + 2 * dims)
    # Channels innermost, as in channels-last memory: copying is several times faster.
    ordered = views.permute(0, 1, *positions, *kernels, 2)
    T = math.prod(ordered.shape[2 : 2 + dims])
    return ordered.reshape(len(a), module.groups, T, -1).transpose(2, 3)
