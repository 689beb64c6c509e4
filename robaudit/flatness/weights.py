"""Relative perturbations of a network's weights."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from types import MappingProxyType

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from robaudit.engine import generator
from robaudit.errors import NotMeasuredError

Weights = dict[str, Tensor]
Kept = Mapping[str, Tensor]
NOTHING_PRUNED: Kept = MappingProxyType({})

_NORMALISATION = (_NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)


def movable_weights(model: nn.Module, idle: Collection[str] = ()) -> Weights:
    """The parameter tensors that are perturbed: not of a normalisation module, and not zero.

    Args:
        model: with its effective weights (:func:`robaudit.engine.effective`).
        idle: tensors that no pass uses, which are left out as well.

    Raises:
        NotMeasuredError: none is left.
    """
    normalising = {
        id(parameter)
        for module in model.modules()
        if isinstance(module, _NORMALISATION)
        for parameter in module.parameters(recurse=False)
    }
    weights = {
        name: parameter.detach()
        for name, parameter in model.named_parameters()
        if id(parameter) not in normalising
        and name not in idle
        and bool(parameter.detach().norm() > 0)
    }
    if not weights:
        raise NotMeasuredError(
            "the network has no weights to perturb",
            "Normalisation parameters and tensors of zeros do not move.",
        )
    return weights


def on_sphere(
    weights: Weights, xi: float, draw: torch.Generator, kept: Kept = NOTHING_PRUNED
) -> Weights:
    """``nu_l = xi ||w_l|| g / ||g||`` with g standard normal: a random point of every sphere.

    Args:
        kept: for pruned tensors, masks of the entries that move.
    """
    moved = {}
    for name, weight in weights.items():
        g = torch.randn(weight.shape, generator=draw).to(weight)
        g = g * kept[name] if name in kept else g
        moved[name] = g * (xi * weight.norm() / g.norm())
    return moved


def in_ball(
    weights: Weights, xi: float, draw: torch.Generator, kept: Kept = NOTHING_PRUNED
) -> Weights:
    """Uniform in every ball ``||nu_l|| <= xi ||w_l||``: a point of the sphere times ``u^(1/d)``."""
    moved = on_sphere(weights, xi, draw, kept)
    return {
        name: nu
        * float(torch.rand((), generator=draw))
        ** (1 / (int(kept[name].sum()) if name in kept else nu.numel()))
        for name, nu in moved.items()
    }


def draw_for(seed: int, kind: str, which: int) -> torch.Generator:
    """The generator of one weight perturbation."""
    return generator(seed, "weights", kind, which)
