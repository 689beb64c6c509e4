"""How many images of PGD-10 are affordable, by the network's arithmetic: the same everywhere."""

from __future__ import annotations

import torch

from robaudit.checkpoints.ascent import STEPS
from robaudit.checkpoints.classifier import Classifier
from robaudit.engine import device_of, frozen
from robaudit.types import Examples

# About 600 images of PGD-10 in all for a ResNet-18 on 32x32: minutes on one core.
_OPERATIONS = 2e13
# A backward pass is two forward passes; one more judges the last step.
_PASSES = 3 * STEPS + 1
_MOST = 1024


def images_for(model: Classifier, examples: Examples, attacks: int) -> int:
    """How many images each of so many attacks may have."""
    return min(_MOST, int(_OPERATIONS / (_PASSES * _operations(model, examples) * attacks)))


def _operations(model: Classifier, examples: Examples) -> int:
    from torch.utils.flop_counter import FlopCounterMode

    counter = FlopCounterMode(display=False)
    try:
        with frozen(model), torch.no_grad(), counter:
            model(examples.x[:1].to(device_of(model)))
    except Exception:  # some networks cannot be counted, and that must not end anything
        return 2 * sum(p.numel() for p in model.parameters()) or 1
    return max(1, counter.get_total_flops())
