"""A model with other weights for the duration of a block."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn


@contextmanager
def moved_weights(model: nn.Module, nu: Mapping[str, Tensor]) -> Iterator[None]:
    """``w + nu`` inside; ``w`` bit for bit afterwards, also after an error.

    Whatever is differentiated inside has to be so before the end: the weights move in place.
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
