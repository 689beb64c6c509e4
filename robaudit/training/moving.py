"""A model with other weights for the duration of a block."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn


@contextmanager
def moved_weights(model: nn.Module, nu: Mapping[str, Tensor]) -> Iterator[None]:
    """Weights ``w + nu`` inside the block; ``w`` is restored bit for bit, also after an error.

    The weights change in place, so gradients have to be computed inside the block.
    """
    own = dict(model.named_parameters())
    kept = {name: own[name].detach().clone() for name in nu}
    try:
        with torch.no_grad():
            for name, change in nu.items():
                own[name].add_(change)
        yield
    finally:
        with torch.no_grad():
            for name, value in kept.items():
                own[name].copy_(value)
