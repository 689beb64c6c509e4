"""The layers of a network, and a record of what flows through them.

A *layer* is one weight tensor of convolution or linear modules: their output is linear in that
tensor, ``z = W * a + b``, whatever the rest of the network does.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from robaudit.errors import NotMeasuredError

Convolution = nn.Conv1d | nn.Conv2d | nn.Conv3d
Transposed = nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d
Supported = nn.Linear | Convolution | Transposed
_FORWARDS = (
    nn.Linear.forward, nn.Conv1d.forward, nn.Conv2d.forward, nn.Conv3d.forward,
    nn.ConvTranspose1d.forward, nn.ConvTranspose2d.forward, nn.ConvTranspose3d.forward,
)  # fmt: skip


@dataclass(frozen=True)
class Layer:
    """A weight tensor and the modules that apply it; several where it is shared."""

    name: str
    modules: tuple[Supported, ...]

    @property
    def weight(self) -> Tensor:
        return self.modules[0].weight

    @property
    def frobenius(self) -> float:
        """``||W||_F``."""
        return float(self.weight.detach().double().norm())


def find_layers(model: nn.Module) -> list[Layer]:
    """Every convolution and linear layer, in the order of registration.

    A weight that several modules of one kind share is one layer, named after the first. Left out,
    and so among :func:`uncovered_weights`: modules that override their class's forward, since what
    they compute from their weight is not known here, and weights shared by modules of two kinds.

    Raises:
        NotMeasuredError: there is none.
    """
    holders: dict[int, list[tuple[str, Supported]]] = {}
    alive = []  # a parametrised weight is made anew each time, and a freed one's id comes back
    for name, module in model.named_modules():
        if isinstance(module, Supported):
            alive.append(module.weight)
            holders.setdefault(id(alive[-1]), []).append((name, module))
    layers = [
        Layer(held[0][0], tuple(module for _, module in held))
        for held in holders.values()
        if all(type(module).forward in _FORWARDS for _, module in held)
        and len({type(module).forward for _, module in held}) == 1
    ]
    if not layers:
        raise NotMeasuredError("the network has no convolution or linear layer to measure")
    return layers


def measurable(model: nn.Module, layers: Sequence[Layer], image: Tensor) -> list[Layer]:
    """The layers whose every use was seen, one example to a row of the input.

    On two and on three copies of ``image``, ``(1, c, h, w)``. Left out: layers whose weight the
    logits depend on although its modules are not called (``nn.MultiheadAttention`` applies its
    projections itself), and layers that run on another first dimension than the examples
    (sequence first, windows).

    Raises:
        NotMeasuredError: none is left.
    """
    kept = list(layers)
    for n in (2, 3):
        images = image.expand(n, *image.shape[1:])
        with torch.no_grad(), recording(kept) as record:
            model(images)
        kept = [
            layer
            for layer in kept
            if all(len(call.input) == len(call.output) == n for call in record.of(layer))
        ]
        silent = [layer for layer in kept if not record.of(layer)]
    hidden = _reached(model, silent, image)
    kept = [layer for layer in kept if layer.name not in hidden]
    if not kept:
        raise NotMeasuredError(
            f"none of the network's {len(layers)} convolution and linear layers can be measured: "
            "they are called in ways that hide which row belongs to which image"
        )
    return kept


def _reached(model: nn.Module, layers: Sequence[Layer], image: Tensor) -> set[str]:
    """Names of layers whose weight the logits depend on."""
    if not layers:
        return set()
    weights = [layer.weight for layer in layers]
    wanted = [weight.requires_grad for weight in weights]
    try:
        for weight in weights:
            weight.requires_grad_(True)
        with torch.enable_grad():
            logits = model(image)
            if not logits.requires_grad:
                return set()
            found = torch.autograd.grad(logits.sum(), weights, allow_unused=True)
    finally:
        for weight, want in zip(weights, wanted, strict=True):
            weight.requires_grad_(want)
    return {
        layer.name for layer, gradient in zip(layers, found, strict=True) if gradient is not None
    }


def uncovered_weights(model: nn.Module, layers: Sequence[Layer]) -> list[str]:
    """Names of parameters with two dimensions or more that no layer holds."""
    held = {id(layer.weight) for layer in layers}
    return [
        name
        for name, parameter in model.named_parameters()
        if parameter.dim() >= 2 and id(parameter) not in held
    ]


@dataclass(frozen=True)
class Call:
    """One application of a layer; ``output`` can be differentiated through."""

    module: Supported
    input: Tensor
    output: Tensor


@dataclass
class Record:
    """What one forward pass left behind: every layer's calls, by its name."""

    calls: dict[str, list[Call]] = field(default_factory=dict)

    def of(self, layer: Layer) -> list[Call]:
        return self.calls.get(layer.name, [])

    def all_outputs(self) -> list[Tensor]:
        return [call.output for calls in self.calls.values() for call in calls]


@contextmanager
def recording(layers: Sequence[Layer]) -> Iterator[Record]:
    """Keep the inputs and the outputs of the layers.

    The network goes on with a copy of each output, since in-place activations would otherwise
    overwrite the tensor that gradients are asked for.
    """
    record = Record()

    def keep(name: str, module: Supported, args: tuple[Any, ...], output: Tensor) -> Tensor:
        if not output.requires_grad and torch.is_grad_enabled():
            output.requires_grad_()
        record.calls.setdefault(name, []).append(Call(module, args[0], output))
        return output.clone()

    handles = [
        module.register_forward_hook(
            lambda module, args, output, name=layer.name: keep(name, module, args, output)
        )
        for layer in layers
        for module in layer.modules
    ]
    try:
        yield record
    finally:
        for handle in handles:
            handle.remove()
