"""Convolutions that give the same sooner, in place of a network's own."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import TypeGuard

import torch
from torch import nn

from robaudit.engine import strided, winograd

FASTER_CONVOLUTIONS = "faster convolutions"


def with_faster_convolutions(network: nn.Module) -> nn.Module | None:
    """A copy of the network with :mod:`winograd` and :mod:`strided` convolutions where they gain.

    Left alone: convolutions on a GPU, in another precision than float32, of another class, in
    groups, dilated, with other padding than zeros, and those with hooks.

    Returns:
        the copy, or ``None`` where there is nothing to gain.
    """
    faster = {
        name: kind
        for name, layer in network.named_modules()
        if _plain(layer) and (kind := _kind(layer))
    }
    if not faster:
        return None
    made = copy.deepcopy(network)
    for name, kind in faster.items():
        parent, _, own = name.rpartition(".")
        layer = made.get_submodule(name)
        assert isinstance(layer, nn.Conv2d)
        if not own:
            return kind(layer)
        setattr(made.get_submodule(parent), own, kind(layer))
    return made.eval().requires_grad_(False)


def _kind(layer: nn.Conv2d) -> Callable[[nn.Conv2d], nn.Module] | None:
    if winograd.gains(layer):
        return winograd.Winograd
    return strided.Strided if strided.gains(layer) else None


def _plain(layer: nn.Module) -> TypeGuard[nn.Conv2d]:
    return (
        type(layer) is nn.Conv2d
        and layer.weight.device.type == "cpu"
        and layer.weight.dtype == torch.float32
        and (layer.groups, layer.dilation) == (1, (1, 1))
        and layer.padding_mode == "zeros"
        and not isinstance(layer.padding, str)
        and not (layer._forward_hooks or layer._forward_pre_hooks)
    )
