"""Stochastic weight averaging."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from robaudit.engine import evaluating

if TYPE_CHECKING:
    from robaudit.types import Images


@dataclass(frozen=True)
class Swa:
    """``a <- decay a + (1 - decay) w`` after every step; the first step sets ``a = w``.

    Attributes:
        decay: of the running average.
        after: number of epochs before averaging begins.

    Source: P. Izmailov et al., "Averaging Weights Leads to Wider Optima and Better Generalization",
    UAI 2018, in the running form of Z. Wang et al., CVPR 2023, section 2.2.
    """

    decay: float = 0.995
    after: int = 0

    @torch.no_grad()
    def update(self, average: dict[str, Tensor], model: nn.Module) -> None:
        """Update ``average`` with the model's parameters, in place; an empty one is initialised."""
        for name, parameter in model.named_parameters():
            if name in average:
                average[name].lerp_(parameter.detach(), 1 - self.decay)
            else:
                average[name] = parameter.detach().clone()


@torch.no_grad()
def averaged_state(
    model: nn.Module, average: Mapping[str, Tensor], x: Images, batch_size: int = 128
) -> dict[str, Tensor]:
    """The state dict of the averaged network, with batch norm statistics of ``x``.

    The running statistics do not apply to averaged weights: means and variances are recomputed over
    the clean images ``x``, with equal weight for each batch. The model itself is restored bit for
    bit.

    Args:
        model: the network.
        average: averaged parameters by name.
        x: images ``(n, c, h, w)`` in ``[0, 1]``.
        batch_size: images per forward pass.
    """
    kept = {name: value.clone() for name, value in model.state_dict().items()}
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    momenta = [norm.momentum for norm in norms]
    with evaluating(model):  # dropout would change the statistics
        try:
            for name, parameter in model.named_parameters():
                parameter.copy_(average[name])
            for norm in norms:
                norm.train()
                norm.reset_running_stats()
                norm.momentum = None
            for batch in torch.split(x, batch_size) if norms else ():
                model(batch)
            return {name: value.clone() for name, value in model.state_dict().items()}
        finally:
            for norm, momentum in zip(norms, momenta, strict=True):
                norm.momentum = momentum
            model.load_state_dict(kept)
