"""Directions in weight space, scaled to the weights they move."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from robaudit.engine import effective, kept_entries, seed_for
from robaudit.engine.arguments import checked
from robaudit.engine.runner import BatchSize
from robaudit.errors import NotMeasuredError
from robaudit.flatness.weights import Weights, draw_for, movable_weights
from robaudit.flatness.worst import worst
from robaudit.types import Progress, ThreatModel

NormalizedBy = Literal["layer", "filter"]


@checked
def normalized(nu: Weights, weights: Weights, by: NormalizedBy = "layer") -> Weights:
    """``nu_l ||w_l|| / ||nu_l||``: along it, ``s`` is a relative change of the weights.

    Args:
        by: ``layer``, one norm per parameter tensor, biases tensors of their own (flatness paper,
            Eq. 2); ``filter``, one norm for each row of a weight's first dimension (Li et al.),
            biases as before.

    Sources: Stutz, Hein & Schiele, ICCV 2021, sec. 3.2; Li et al., "Visualizing the loss landscape
    of neural nets", NeurIPS 2018, sec. 4.
    """
    return {name: _scaled(moved, weights[name], by) for name, moved in nu.items()}


@checked
def random_direction(
    model: nn.Module, *, by: NormalizedBy = "layer", seed: int = 0, which: int = 0
) -> Weights:
    """A standard normal direction, :func:`normalized`; the ``which``-th of a seed.

    Raises:
        NotMeasuredError: the network has no weights to move.
    """
    model = effective(model)
    weights, kept = movable_weights(model), kept_entries(model)
    draw = draw_for(seed, "landscape", which)
    nu = {name: torch.randn(w.shape, generator=draw).to(w) for name, w in weights.items()}
    nu |= {name: nu[name] * mask for name, mask in kept.items() if name in nu}
    return normalized(nu, weights, by)


@checked
def adversarial_direction(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    threat: ThreatModel,
    *,
    by: NormalizedBy = "layer",
    seed: int = 0,
    which: int = 0,
    steps: int = 20,
    step_size: float | None = None,
    index: Tensor | None = None,
    batch_size: BatchSize = "auto",
    progress: Progress | None = None,
) -> Weights:
    """The perturbation that one restart of worst-case flatness finds, :func:`normalized`.

    Raises:
        NotMeasuredError: no change of the weights was found that raises the robust loss.
    """
    model = effective(model, x)
    found = worst(
        model, x, y, threat, restarts=1, steps=steps, step_size=step_size, index=index,
        seed=seed_for(seed, "landscape", which), batch_size=batch_size, progress=progress,
    )  # fmt: skip
    if not any(bool(moved.norm() > 0) for moved in found.nu.values()):
        raise NotMeasuredError(
            "no direction was found in which the robust loss rises", "Cut along --directions random"
        )
    return normalized(found.nu, movable_weights(model), by)


def _scaled(moved: Tensor, weight: Tensor, by: NormalizedBy) -> Tensor:
    rows = weight.shape[0] if by == "filter" and weight.dim() > 1 else 1
    # In float64, where the squares of a hardly moved filter do not vanish.
    flat, own = moved.double().reshape(rows, -1), weight.double().reshape(rows, -1)
    norm = flat.norm(dim=1, keepdim=True).clamp_min(torch.finfo(flat.dtype).tiny)
    scaled: Tensor = flat / norm * own.norm(dim=1, keepdim=True)
    return scaled.to(weight).reshape(weight.shape)
