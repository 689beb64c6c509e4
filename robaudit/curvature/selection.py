"""Which parameters an operator acts on."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from torch import nn
from torch.nn import Parameter

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
        raise UsageError("no layer was named", "Name at least one, or leave the choice out.")
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
