"""Which weights are measured, and in which of two ways."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from robaudit.curvature.exact import gauss_newton_traces
from robaudit.curvature.layers import Layer, Supported, find_layers, find_offsets, row_by_row
from robaudit.curvature.one_by_one import squared_gradients
from robaudit.curvature.selection import chosen_parameters
from robaudit.engine import generator
from robaudit.errors import NotMeasuredError

Layers = Sequence[str] | Literal["all"] | None

NOTHING = "the network has no convolution or linear layer to measure"
ADVICE = "Other parameters are measured with --layers all, or where they are named."

# A use of a weight that the record has missed changes the gradient by far more, rounding by less.
_AGREE = 1e-2


@dataclass(frozen=True)
class Targets:
    """The weights to measure.

    Attributes:
        recorded: layers whose every use is a call of their modules, one row an example: many
            examples and columns go through at once.
        alone: all other parameters, by name, which are measured one example at a time.
        names: of all of them, in the network's order; a module's weight has the module's name.
        uncovered: parameters of two dimensions or more that the default leaves out.
    """

    recorded: list[Layer]
    alone: dict[str, Tensor]
    names: tuple[str, ...]
    uncovered: tuple[str, ...]

    @property
    def weights(self) -> dict[str, Tensor]:
        """Recorded layers first, then the others."""
        return {layer.name: layer.weight for layer in self.recorded} | self.alone


def find_targets(model: nn.Module, layers: Layers, image: Tensor) -> Targets:
    """Settle what is measured, on a frozen network.

    Args:
        layers: names as in :func:`robaudit.curvature.selection.chosen_parameters`, ``"all"`` for
            every parameter, ``None`` for the weights of convolutions, linear layers and attention
            projections.
        image: ``(1, c, h, w)``.

    Raises:
        UsageError: an empty list, or a name that the network does not have.
        NotMeasuredError: there is nothing to measure.
    """
    candidates = find_layers(model) + ([] if layers is None else find_offsets(model))
    own = {id(parameter) for parameter in model.parameters()}
    made = {layer.name: layer for layer in candidates if id(layer.weight) not in own}
    chosen = _chosen(model, layers, made)
    wanted = {id(parameter) for parameter in chosen.values()}
    recorded = _faithful(
        model,
        [
            layer
            for layer in candidates
            if id(layer.weight) in wanted
            or (layer.name in made and (layers is None or layers == "all" or layer.name in layers))
        ],
        image,
        made,
    )
    held = {id(layer.weight) for layer in recorded}
    held |= {id(p) for layer in recorded if layer.name in made for p in _behind(layer)}
    alone = {shown_name(name): p for name, p in chosen.items() if id(p) not in held}
    if not recorded and not alone:
        raise NotMeasuredError(NOTHING, ADVICE)
    return Targets(
        recorded=recorded,
        alone=alone,
        names=_in_order(model, recorded, alone),
        uncovered=tuple(
            name
            for name, parameter in model.named_parameters()
            if layers is None
            and parameter.dim() >= 2
            and id(parameter) not in held
            and id(parameter) not in wanted
        ),
    )


def default_parameters(model: nn.Module) -> dict[str, Tensor]:
    """Weights of convolutions, linear layers and attention projections, however they are called.

    A weight that is made from other parameters (a parametrisation) stands for these.
    """
    wanted: set[int] = set()
    for module in model.modules():
        if isinstance(module, Supported):
            own = list(module.parameters(recurse=False))
            if any(parameter is module.weight for parameter in own):
                wanted.add(id(module.weight))
            else:
                wanted |= {id(p) for p in module.parameters() if p.dim() >= 2}
        elif isinstance(module, nn.MultiheadAttention):
            projections = (
                module.in_proj_weight, module.q_proj_weight, module.k_proj_weight,
                module.v_proj_weight,
            )  # fmt: skip
            wanted |= {id(weight) for weight in projections if weight is not None}
    return {name: p for name, p in model.named_parameters() if id(p) in wanted}


def shown_name(parameter: str) -> str:
    """A module's weight goes by the module's name, every other parameter by its own."""
    return parameter.removesuffix(".weight")


def _chosen(model: nn.Module, layers: Layers, made: Mapping[str, Layer]) -> dict[str, Tensor]:
    if layers is None:
        return default_parameters(model)
    if layers == "all":
        return {n: p for n, p in model.named_parameters() if p.is_floating_point()}
    named = [layer for layer in layers if layer not in made]
    chosen: dict[str, Tensor] = {}
    if named or not layers:
        chosen |= chosen_parameters(model, named)
    behind = {id(p) for layer in layers if layer in made for p in _behind(made[layer])}
    return chosen | {name: p for name, p in model.named_parameters() if id(p) in behind}


def _behind(layer: Layer) -> Iterator[nn.Parameter]:
    """The parameters that a layer's weight is made from."""
    for module in layer.modules:
        for name, parameter in module.named_parameters():
            if name.removeprefix("parametrizations.").startswith(layer.part):
                yield parameter


def _faithful(
    model: nn.Module, layers: list[Layer], image: Tensor, made: Mapping[str, Layer]
) -> list[Layer]:
    """The layers of which the record knows all: held against automatic differentiation.

    For a random combination ``f`` of one image's logits, ``||df / dW_k||^2`` from the record and
    from the parameter itself. They differ where a weight is also used behind the record's back, as
    by ``nn.MultiheadAttention``, which applies its modules' weights as functions.
    """
    layers = row_by_row(model, layers, image)
    if not layers:
        return []

    def combination(logits: Tensor) -> Tensor:
        draw = generator(0, "faithful")
        return torch.randn(1, *logits.shape, generator=draw).to(logits)

    seen = gauss_newton_traces(model, layers, image, combination, 1)[0]
    leaves = {layer.name: layer.weight for layer in layers if layer.name not in made}
    true = squared_gradients(model, leaves, image, combination)
    whole = dict(zip(leaves, true.tolist(), strict=True))
    kept = []
    for layer, value in zip(layers, seen.tolist(), strict=True):
        # A weight that is made anew each time cannot be asked; it must at least be called.
        other = whole.get(layer.name, value if value else float("inf"))
        numbers = torch.finfo(layer.weight.dtype)
        faint = numbers.tiny / numbers.eps  # squares of the record's own precision end there
        if not abs(value - other) > max(_AGREE * max(value, other), faint):
            kept.append(layer)
    return kept


def _in_order(
    model: nn.Module, recorded: Sequence[Layer], alone: Mapping[str, Tensor]
) -> tuple[str, ...]:
    place = {id(p): at for at, p in enumerate(model.parameters())}
    at: dict[str, int] = {}
    for layer in recorded:
        behind = (place[id(p)] for p in _behind(layer)) if id(layer.weight) not in place else ()
        at[layer.name] = place.get(id(layer.weight), min(behind, default=-1))
    at |= {name: place[id(p)] for name, p in alone.items()}
    return tuple(sorted(at, key=at.__getitem__))
