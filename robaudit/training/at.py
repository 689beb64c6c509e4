"""Adversarial training on PGD examples."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robaudit.engine import frozen
from robaudit.training.inner import maximise

if TYPE_CHECKING:
    from robaudit.types import Images, Labels, ThreatModel


def at_loss(
    model: nn.Module,
    x: Images,
    y: Labels,
    generator: torch.Generator | None = None,
    *,
    threat: ThreatModel,
    steps: int = 10,
    step_size: float | None = None,
) -> Tensor:
    """``E[CE(f(x'), y)]`` with ``x'`` from PGD on the cross-entropy, a scalar.

    ``x'`` is made with the model in eval mode: so it attacks the network that will be evaluated,
    an example's perturbation does not depend on its neighbours in the batch, and the running
    statistics of batch norm see each batch once and not ``steps + 1`` times. The loss itself is
    computed in the mode the model came in.

    Args:
        model: images in ``[0, 1]`` to logits.
        x: clean images ``(n, c, h, w)``.
        y: labels ``(n,)``.
        generator: source of the random start.
        threat: norm and radius of the perturbations.
        steps: PGD steps.
        step_size: of one step; a quarter of the radius if not given.

    Source: A. Madry et al., "Towards Deep Learning Models Resistant to Adversarial Attacks",
    ICLR 2018, Eq. 2.1.
    """
    with frozen(model):
        moved = maximise(
            lambda z: F.cross_entropy(model(z), y, reduction="sum"),
            x,
            threat,
            steps=steps,
            step_size=step_size,
            generator=generator,
        )
    return F.cross_entropy(model(moved), y)
