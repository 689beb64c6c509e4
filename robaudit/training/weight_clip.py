"""Weights that stay in a box."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from robaudit.curvature.layers import Normalisation


@dataclass(frozen=True)
class WeightClip:
    """``w <- min(max(w, -bound), bound)`` after every step.

    For every trained parameter but those of normalisation modules, whose scales begin at one.

    Attributes:
        bound: largest absolute value of a weight or bias.

    Source: D. Stutz et al., "Bit Error Robustness for Energy-Efficient DNN Accelerators", MLSys
    2021; as a regulariser of adversarial training, D. Stutz et al., ICCV 2021, section 4.
    """

    bound: float

    @torch.no_grad()
    def apply(self, model: nn.Module) -> None:
        """Clip the model's parameters in place."""
        for module in model.modules():
            if not isinstance(module, Normalisation):
                for parameter in module.parameters(recurse=False):
                    if parameter.requires_grad:
                        parameter.clamp_(-self.bound, self.bound)
