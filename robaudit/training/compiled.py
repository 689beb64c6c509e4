"""Compile a network with ``torch.compile``, where that works."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch
from torch import nn

if TYPE_CHECKING:
    from robaudit.training.recipe import Recipe
    from robaudit.types import Images


def compiled(model: nn.Module, x: Images, recipe: Recipe) -> tuple[nn.Module, str | None]:
    """``model`` compiled, with shared weights; or the model itself, and the reason.

    A forward and a backward pass on two images in eval mode detect a missing compiler before the
    first epoch.
    """
    if any(table is not None for table in (recipe.trh, recipe.taylor, recipe.rotations)):
        return model, "[trh], [taylor] and [rotations] need hooks inside the network"
    network = cast("nn.Module", torch.compile(model))
    try:
        network(x[:2].clone().requires_grad_()).sum().backward()
    except Exception as error:  # a compiler fails in more ways than it documents
        said = " ".join(str(error).split())
        return model, said[:160] or type(error).__name__
    finally:
        model.zero_grad(set_to_none=True)
    return network, None
