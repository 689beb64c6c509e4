"""The layers of a network, and a record of what flows through them.

A *layer* is one weight tensor of a convolution or linear module: its output is linear in that
tensor, ``z = W * a + b``, whatever the rest of the network does.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robaudit.errors import NotMeasuredError

Supported = nn.Linear | nn.Conv1d | nn.Conv2d
_FORWARDS = (nn.Linear.forward, nn.Conv1d.forward, nn.Conv2d.forward)


@dataclass(frozen=True)
class Layer:
    """A weight tensor and the module that applies it."""

    name: str
    module: Supported

    @property
    def weight(self) -> Tensor:
        return self.module.weight

    @property
    def frobenius(self) -> float:
        """``||W||_F``."""
        return float(self.weight.detach().double().norm())


def find_layers(model: nn.Module) -> list[Layer]:
    """Every convolution and linear layer, in the order of registration.

    Left out, and so among :func:`uncovered_weights`: modules that override their class's forward,
    since what they compute from their weight is not known here, and weights that several modules
    share, since the gradient of such a weight is a sum over modules.

    Raises:
        NotMeasuredError: there is none.
    """
    found = [
        Layer(name, module)
        for name, module in model.named_modules()
        if isinstance(module, Supported) and type(module).forward in _FORWARDS
    ]
    holders = Counter(id(layer.weight) for layer in found)
    layers = [layer for layer in found if holders[id(layer.weight)] == 1]
    if not layers:
        raise NotMeasuredError("the network has no convolution or linear layer to measure")
    return layers


def uncovered_weights(model: nn.Module, layers: Sequence[Layer]) -> list[str]:
    """Names of parameters with two dimensions or more that no layer holds."""
    held = {id(layer.weight) for layer in layers}
    return [
        name
        for name, parameter in model.named_parameters()
        if parameter.dim() >= 2 and id(parameter) not in held
    ]


@dataclass
class Record:
    """What one forward pass left behind: per layer, every call's input and output."""

    inputs: dict[str, list[Tensor]] = field(default_factory=dict)
    outputs: dict[str, list[Tensor]] = field(default_factory=dict)

    def all_outputs(self) -> list[Tensor]:
        return [output for calls in self.outputs.values() for output in calls]


@contextmanager
def recording(layers: Sequence[Layer]) -> Iterator[Record]:
    """Keep the inputs and the outputs of the layers; outputs can be differentiated through.

    The network goes on with a copy of each output, since in-place activations would otherwise
    overwrite the tensor that gradients are asked for.
    """
    record = Record()

    def keep(name: str, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        if not output.requires_grad:
            output.requires_grad_()
        record.inputs.setdefault(name, []).append(args[0].detach())
        record.outputs.setdefault(name, []).append(output)
        return output.clone()

    handles = [
        layer.module.register_forward_hook(
            lambda _, args, output, name=layer.name: keep(name, args, output)
        )
        for layer in layers
    ]
    try:
        yield record
    finally:
        for handle in handles:
            handle.remove()


def positions(layer: Layer, calls: Sequence[Tensor]) -> Tensor:
    """Layer inputs as columns ``A``: ``(n, groups, fan_in, T)``, ``T`` positions over all calls.

    The layer's output at position t is ``W A[..., t] + b``.
    """
    module = layer.module
    if isinstance(module, nn.Linear):
        return torch.cat([_tokens(call) for call in calls], dim=-1)
    return torch.cat([_patches(module, call) for call in calls], dim=-1)


def output_positions(layer: Layer, calls: Sequence[Tensor], batched: bool = False) -> Tensor:
    """Layer outputs or their gradients as columns, ``(..., n, groups, fan_out, T)``."""
    module = layer.module
    lead = 2 if batched else 1
    if isinstance(module, nn.Linear):
        rows = [
            call.flatten(lead, -2) if call.dim() > lead + 1 else call.unsqueeze(lead)
            for call in calls
        ]
        return torch.cat([row.transpose(-1, -2).unsqueeze(-3) for row in rows], dim=-1)
    columns = []
    for call in calls:
        flat = call.flatten(lead + 1)
        columns.append(flat.reshape(*flat.shape[:lead], module.groups, -1, flat.shape[-1]))
    return torch.cat(columns, dim=-1)


def _tokens(call: Tensor) -> Tensor:
    rows = call.flatten(1, -2) if call.dim() > 2 else call.unsqueeze(1)
    return rows.transpose(1, 2).unsqueeze(1)


def _patches(module: nn.Conv1d | nn.Conv2d, call: Tensor) -> Tensor:
    kernel, stride, dilation = module.kernel_size, module.stride, module.dilation
    mode = "constant" if module.padding_mode == "zeros" else module.padding_mode
    # Pairs (before, after) from the last dimension to the first, as torch's own forward pads;
    # unlike module.padding it also resolves padding="same".
    pads: list[int] = list(module._reversed_padding_repeated_twice)
    padded = F.pad(call, pads, mode=mode)
    if isinstance(module, nn.Conv1d):
        padded = padded.unsqueeze(2)
        kernel, stride, dilation = (1, *kernel), (1, *stride), (1, *dilation)
    columns = F.unfold(padded, kernel, dilation=dilation, stride=stride)
    return columns.reshape(len(call), module.groups, -1, columns.shape[-1])
