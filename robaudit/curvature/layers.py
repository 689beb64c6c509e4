"""The layers of a network, and a record of their inputs and outputs.

A *layer* is one parameter tensor of convolution, linear or normalisation modules: their output is
linear in that tensor, ``z = W * a + b``, whatever the rest of the network does.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm

from robaudit.engine.calls import temporary

Convolution = nn.Conv1d | nn.Conv2d | nn.Conv3d
Supported = nn.Linear | Convolution
Normalisation = _BatchNorm | _InstanceNorm | nn.GroupNorm | nn.LayerNorm | nn.RMSNorm
ParameterKind = Literal["weight", "bias"]
_FORWARDS = tuple(
    kind.forward
    for kind in (
        *(nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d),
        *(_BatchNorm, _InstanceNorm, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm),
    )
)


@dataclass(frozen=True)
class Layer:
    """A parameter and the modules that use it; several where it is shared."""

    name: str
    modules: tuple[Supported | Normalisation, ...]
    part: ParameterKind = "weight"

    @property
    def weight(self) -> Tensor:
        tensor: Tensor = getattr(self.modules[0], self.part)
        return tensor


def find_layers(model: nn.Module) -> list[Layer]:
    """The weight of every convolution and linear layer, in the order of registration.

    A weight that several modules of one class share is one layer, named after the first. Modules
    that override their class's forward, and weights shared by modules of two classes, are left out.
    """
    return _held(model, [(Supported, "weight")])


def find_offsets(model: nn.Module) -> list[Layer]:
    """Biases, and the scales of normalisations, as in :func:`find_layers`.

    Batch norm without running statistics mixes examples and is left out.
    """
    return _held(model, [(Supported, "bias"), (Normalisation, "weight"), (Normalisation, "bias")])


def _held(model: nn.Module, kinds: Sequence[tuple[Any, ParameterKind]]) -> list[Layer]:
    holders: dict[int, list[tuple[str, Any, ParameterKind]]] = {}
    alive = []  # a parametrised weight is a new tensor at each access, and ids of freed ones recur
    for name, module in model.named_modules():
        if isinstance(module, _BatchNorm) and module.running_mean is None:
            continue
        for kind, part in kinds:
            tensor = getattr(module, part, None) if isinstance(module, kind) else None
            if tensor is not None:
                alive.append(tensor)
                shown = name if part == "weight" else f"{name}.{part}" if name else part
                holders.setdefault(id(tensor), []).append((shown, module, part))
    return [
        Layer(held[0][0], tuple(module for _, module, _ in held), held[0][2])
        for held in holders.values()
        if all(type(module).forward in _FORWARDS for _, module, _ in held)
        and len({(type(module).forward, part) for _, module, part in held}) == 1
    ]


def row_by_row(model: nn.Module, layers: Sequence[Layer], image: Tensor) -> list[Layer]:
    """The layers that are called with one row of input per example, or not called at all.

    Tested on two and on three copies of ``image``, ``(1, c, h, w)``, on one of which layers with
    another first dimension (sequence first, windows) have another number of rows.
    """
    kept = list(layers)
    for n in (2, 3):
        with torch.no_grad(), recording(kept) as record:
            model(image.expand(n, *image.shape[1:]))
        kept = [
            layer
            for layer in kept
            if all(len(call.input) == len(call.output) == n for call in record.of(layer))
        ]
    return kept


@dataclass(frozen=True)
class Call:
    """One call of a layer; gradients can be computed in ``output``."""

    module: Supported | Normalisation
    input: Tensor
    output: Tensor
    part: ParameterKind = "weight"


@dataclass
class Record:
    """The calls of every layer in one forward pass, by name."""

    calls: dict[str, list[Call]] = field(default_factory=dict)

    def of(self, layer: Layer) -> list[Call]:
        return self.calls.get(layer.name, [])

    def all_outputs(self) -> list[Tensor]:
        return [call.output for calls in self.calls.values() for call in calls]


@contextmanager
def recording(layers: Sequence[Layer]) -> Iterator[Record]:
    """Record the inputs and outputs of the layers.

    The network continues with a copy of each output, since in-place activations would otherwise
    overwrite the tensor in which gradients are computed.
    """
    record = Record()

    def keep(layer: Layer, module: Any, args: Any, named: dict[str, Any], output: Tensor) -> Tensor:
        if not output.requires_grad and torch.is_grad_enabled():
            output.requires_grad_()
        a = args[0] if args else named["input"]
        record.calls.setdefault(layer.name, []).append(Call(module, a, output, layer.part))
        return output.clone()

    handles = [
        module.register_forward_hook(
            lambda module, args, named, output, layer=layer: keep(
                layer, module, args, named, output
            ),
            with_kwargs=True,
        )
        for layer in layers
        for module in layer.modules
    ]
    with temporary(*handles):
        yield record
