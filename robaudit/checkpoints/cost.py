"""How many images of PGD-10 are affordable, by the network's arithmetic: the same everywhere."""

from __future__ import annotations

from collections.abc import Sequence

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


def images_for(models: Sequence[Classifier], examples: Examples) -> int:
    """How many images the attack on each of the models may have."""
    return min(_MOST, int(1 / share(models, examples, 1)))


def share(models: Sequence[Classifier], examples: Examples, m: int) -> float:
    """The part of what is affordable that an attack on each of the models with m images takes."""
    once = {id(model.network): model for model in models}
    operations = {key: _operations(model, examples) for key, model in once.items()}
    total = sum(operations[id(model.network)] for model in models)
    return m * _PASSES * total / _OPERATIONS


def _operations(model: Classifier, examples: Examples) -> int:
    from torch.utils.flop_counter import FlopCounterMode

    counter = FlopCounterMode(display=False)
    try:
        with frozen(model), torch.no_grad(), counter:
            model(examples.x[:1].to(device_of(model)))
    except Exception:  # some networks cannot be counted, and that must not end anything
        return 2 * sum(p.numel() for p in model.parameters()) or 1
    return max(1, counter.get_total_flops())
