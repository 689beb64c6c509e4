"""The weights whose traces are measured, and by which of two methods."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

from robaudit.curvature.exact import gauss_newton_traces
from robaudit.curvature.layers import (
    Layer,
    Record,
    Supported,
    find_layers,
    find_offsets,
    row_by_row,
)
from robaudit.curvature.linear_pieces import linear_pieces
from robaudit.curvature.per_example import squared_gradients
from robaudit.curvature.selection import chosen_parameters
from robaudit.curvature.sweep import Sweep
from robaudit.engine import device_of, generator, idle_parameters, kept_entries
from robaudit.errors import NotMeasuredError

_Transposed = nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d
Layers = Sequence[str] | Literal["all"] | None

NOTHING = "the network has no convolution or linear layer to measure"
ADVICE = "Other parameters are measured with --layers all, or where they are named."

# Relative difference of gradients above which the record has missed a use of a weight.
_AGREE = 1e-2


@dataclass(frozen=True)
class Targets:
    """The weights to measure.

    Attributes:
        recorded: layers whose every use is a call of their module with one row per example; many
            examples and columns are processed together.
        alone: all other parameters, by name, which are measured one example at a time.
        names: of all of them, in the network's order; a module's weight has the module's name.
        uncovered: parameters of two dimensions or more that the default leaves out.
        idle: chosen parameters that no forward pass uses; they are not among the others.
        linear: the network is known to be piecewise linear in all of them on the first image.
        kept: masks of the entries that are not pruned, for parameters of ``alone`` with pruned
            entries.
    """

    recorded: list[Layer]
    alone: dict[str, Tensor]
    names: tuple[str, ...]
    uncovered: tuple[str, ...]
    idle: tuple[str, ...] = ()
    linear: bool = False
    kept: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def weights(self) -> dict[str, Tensor]:
        """Recorded layers first, then the others."""
        return {layer.name: layer.weight for layer in self.recorded} | self.alone


def find_targets(model: nn.Module, layers: Layers, x: Tensor) -> Targets:
    """The weights to measure, of a frozen network with its effective weights.

    Args:
        layers: names as in :func:`robaudit.curvature.selection.chosen_parameters`, ``"all"`` for
            every parameter, ``None`` for the weights of convolutions, linear layers and attention
            projections.
        x: a few images ``(n, c, h, w)``.

    Raises:
        UsageError: an empty list, or a name that the network does not have.
        NotMeasuredError: there is nothing to measure.
    """
    chosen = _chosen(model, layers)
    idle = {id(model.get_parameter(name)) for name in idle_parameters(model, x)}
    unused = tuple(shown_name(name) for name, p in chosen.items() if id(p) in idle)
    chosen = {name: p for name, p in chosen.items() if id(p) not in idle}
    pruned = kept_entries(model)
    wanted = {id(parameter) for parameter in chosen.values()}
    partly = {id(chosen[name]) for name in pruned if name in chosen}
    candidates = find_layers(model) + ([] if layers is None else find_offsets(model))
    recorded, linear = _faithful(
        model,
        # The record supports whole tensors only.
        [layer for layer in candidates if id(layer.weight) in wanted - partly],
        x[:1].to(device_of(model)),
    )
    held = {id(layer.weight) for layer in recorded}
    alone = {shown_name(name): p for name, p in chosen.items() if id(p) not in held}
    if not recorded and not alone:
        raise NotMeasuredError(
            f"no pass uses {', '.join(unused)}" if unused else NOTHING,
            None if unused else ADVICE,
        )
    return Targets(
        recorded=recorded,
        alone=alone,
        names=_in_order(model, recorded, alone),
        uncovered=tuple(
            name
            for name, parameter in model.named_parameters()
            if layers is None
            and parameter.dim() >= 2
            and id(parameter) not in wanted
            and id(parameter) not in idle
        ),
        idle=unused,
        linear=linear and not alone,
        kept={shown_name(name): kept for name, kept in pruned.items() if name in chosen},
    )


def default_parameters(model: nn.Module) -> dict[str, Tensor]:
    """Weights of convolutions, linear layers and attention projections, used in any way.

    Where a module computes its weight from other parameters, these are taken instead.
    """
    wanted: set[int] = set()
    for module in model.modules():
        if isinstance(module, Supported | _Transposed):
            own = list(module.parameters(recurse=False))
            if any(parameter is module.weight for parameter in own):
                wanted.add(id(module.weight))
            else:
                wanted |= {id(p) for p in module.parameters() if p.dim() >= 2}
        elif isinstance(module, nn.MultiheadAttention):
            projections = (
                module.in_proj_weight,
                module.q_proj_weight,
                module.k_proj_weight,
                module.v_proj_weight,
            )
            wanted |= {id(weight) for weight in projections if weight is not None}
    return {name: p for name, p in model.named_parameters() if id(p) in wanted}


def shown_name(parameter: str) -> str:
    """The module's name for its weight, the parameter's own name for any other."""
    return parameter.removesuffix(".weight")


def _chosen(model: nn.Module, layers: Layers) -> dict[str, Tensor]:
    if layers is None:
        return default_parameters(model)
    if layers == "all":
        return {n: p for n, p in model.named_parameters() if p.is_floating_point()}
    return dict(chosen_parameters(model, layers))


def _faithful(model: nn.Module, layers: list[Layer], image: Tensor) -> tuple[list[Layer], bool]:
    """The layers whose every use is recorded, by comparison with automatic differentiation.

    And whether the network is known to be piecewise linear in them.

    For a random combination ``f`` of one image's logits, ``||df / dW_k||^2`` is computed from the
    record and from the parameter itself. They differ where a weight is also used other than by a
    call of its module, as in ``nn.MultiheadAttention``, which uses its modules' weights as tensors.
    """
    layers = row_by_row(model, layers, image)
    if not layers:
        return [], False

    def combination(logits: Tensor) -> Tensor:
        draw = generator(0, "faithful")
        row = torch.randn(1, 1, logits.shape[1], generator=draw).to(logits)
        return row.expand(1, *logits.shape)

    two = image.expand(2, *image.shape[1:])
    linear = False

    def graph(sweep: Sweep, record: Record) -> None:
        nonlocal linear
        linear = linear_pieces(sweep.steps()) and all(
            len(calls) == 1 for calls in record.calls.values()
        )

    seen = gauss_newton_traces(model, layers, two, combination, 1, seen=graph)[0]
    leaves = {layer.name: layer.weight for layer in layers}
    true = squared_gradients(model, leaves, image, combination)
    kept = []
    for layer, value, other in zip(layers, seen.tolist(), true.tolist(), strict=True):
        numbers = torch.finfo(layer.weight.dtype)
        faint = numbers.tiny / numbers.eps  # squares of the record's own precision end there
        if not abs(value - other) > max(_AGREE * max(value, other), faint):
            kept.append(layer)
    return kept, linear


def _in_order(
    model: nn.Module, recorded: Sequence[Layer], alone: Mapping[str, Tensor]
) -> tuple[str, ...]:
    place = {id(p): at for at, p in enumerate(model.parameters())}
    at = {layer.name: place[id(layer.weight)] for layer in recorded}
    at |= {name: place[id(p)] for name, p in alone.items()}
    return tuple(sorted(at, key=at.__getitem__))
