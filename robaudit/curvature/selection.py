"""The parameters that an operator acts on."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import Parameter

from robaudit.engine import (
    effective,
    effective_notes,
    frozen,
    idle_note,
    idle_parameters,
    kept_entries,
)
from robaudit.errors import NotMeasuredError, UsageError


def chosen_parameters(
    model: nn.Module, layers: Sequence[str] | None = None
) -> dict[str, Parameter]:
    """The named layers' weights, or all parameters, in the network's order.

    Args:
        layers: names of modules (``layer1.0.conv1``, meaning their weight) or of parameters
            (``layer1.0.conv1.bias``); ``None`` for the whole network.

    Raises:
        UsageError: an empty list, or a name that the network does not have.
        NotMeasuredError: the network has no parameters.

    >>> list(chosen_parameters(nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2)), ["1"]))
    ['1.weight']
    """
    named = dict(model.named_parameters())
    if not named:
        raise NotMeasuredError("the network has no parameters")
    if layers is None:
        return named
    if not layers:
        raise UsageError("no layer was named", "Name one, or omit the option for all.")
    everywhere = dict(model.named_parameters(remove_duplicate=False))  # tied weights: each name
    weights = {
        name.removesuffix(".weight"): parameter
        for name, parameter in everywhere.items()
        if name.endswith(".weight")
    }
    known = {**everywhere, **weights}
    wanted = set()
    for layer in layers:
        if layer not in known:
            near = difflib.get_close_matches(layer, known, n=3) or sorted(weights)[:3]
            raise UsageError(
                f"the network has no layer {layer!r}", f"Did you mean {' or '.join(near)}?"
            )
        wanted.add(id(known[layer]))
    return {name: parameter for name, parameter in named.items() if id(parameter) in wanted}


def leaves_of(model: nn.Module, layers: Sequence[str] | None = None) -> dict[str, Tensor]:
    """:func:`chosen_parameters` as tensors to differentiate in, which share their memory."""
    chosen = chosen_parameters(model, layers)
    return {name: parameter.detach().requires_grad_() for name, parameter in chosen.items()}


@dataclass(frozen=True)
class Coordinates:
    """The entries of parameters that a matrix acts on.

    Attributes:
        layers: names for :func:`chosen_parameters`, without parameters that no forward pass uses;
            ``None`` for all.
        dimension: number of entries that are not pruned.
        kept: ``(P,)`` mask of the entries that are not pruned; ``None`` if none is.
        notes: how parametrised and pruned weights were treated, and what was left out.
    """

    layers: tuple[str, ...] | None
    dimension: int
    kept: Tensor | None
    notes: tuple[str, ...]

    def restricted(self, product: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        """``v -> P A P^T v``, ``P`` the projection on the entries that are not pruned."""
        kept = self.kept
        if kept is None:
            return product

        def within(v: Tensor) -> Tensor:
            full = v.new_zeros(len(kept))
            full[kept] = v
            return product(full)[kept]

        return within

    def gathered(self, v: Tensor) -> Tensor:
        """The entries of the last dimension that are not pruned."""
        return v if self.kept is None else v[..., self.kept]


def effective_coordinates(
    model: nn.Module, layers: Sequence[str] | None, x: Tensor
) -> tuple[nn.Module, Coordinates]:
    """The network with its effective weights, and the entries that a matrix over them acts on.

    Args:
        model: the network; it is left unchanged.
        layers: as for :func:`chosen_parameters`.
        x: a few images ``(n, c, h, w)``.

    Raises:
        UsageError, NotMeasuredError: as :func:`chosen_parameters`, or no forward pass uses any of
            the parameters.
    """
    plain = effective(model, x)
    with frozen(plain):
        chosen = chosen_parameters(plain, layers)
        unused = set(idle_parameters(plain, x))
    idle = tuple(name for name in chosen if name in unused)
    used = {name: parameter for name, parameter in chosen.items() if name not in unused}
    if not used:
        raise NotMeasuredError(f"no pass uses {', '.join(idle)}")
    masks, kept = kept_entries(plain), None
    if any(name in masks for name in used):
        kept = torch.cat(
            [
                masks.get(name, torch.ones_like(parameter, dtype=torch.bool)).flatten()
                for name, parameter in used.items()
            ]
        )
    size = sum(parameter.numel() for parameter in used.values())
    if layers is not None or idle:
        layers = tuple(used)
    return plain, Coordinates(
        layers=None if layers is None else tuple(layers),
        dimension=size if kept is None else int(kept.sum()),
        kept=kept,
        notes=(*effective_notes(model, plain), *idle_note(idle)),
    )
