"""Directions in weight space, scaled to the weights they move."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from robaudit.engine import effective, kept_entries, seed_for
from robaudit.engine.arguments import checked
from robaudit.engine.precision import Asked
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
        nu: the direction, by parameter tensor.
        weights: the weights, by parameter tensor.
        by: ``layer``, one norm per parameter tensor; ``filter``, one norm for each row of a
            weight's first dimension, and one for each bias tensor.

    Returns:
        The scaled direction, by parameter tensor.

    Source: Stutz, Hein & Schiele, "Relating adversarially robust generalization to flat minima",
    ICCV 2021, Eq. 2 (layer); Li et al., "Visualizing the loss landscape of neural nets", NeurIPS
    2018, sec. 4 (filter).

    >>> normalized({"w": torch.tensor([0.0, 2.0])}, {"w": torch.tensor([3.0, 4.0])})
    {'w': tensor([0., 5.])}
    """
    return {name: _scaled(moved, weights[name], by) for name, moved in nu.items()}


@checked
def random_direction(
    model: nn.Module, *, by: NormalizedBy = "layer", seed: int = 0, which: int = 0
) -> Weights:
    """A standard normal direction, scaled by :func:`normalized`.

    Args:
        model: the network whose weights it moves.
        by: as in :func:`normalized`.
        seed: of the draw.
        which: its number among the directions of a seed.

    Returns:
        The direction, by parameter tensor.

    Raises:
        NotMeasuredError: the network has no weights to perturb.

    Source: as of :func:`normalized`.

    >>> sorted(random_direction(nn.Linear(4, 2)))
    ['bias', 'weight']
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
    precision: Asked = "auto",
    batch_size: BatchSize = "auto",
    progress: Progress | None = None,
) -> Weights:
    """The perturbation found by one restart of worst-case flatness, scaled by :func:`normalized`.

    Args:
        model: maps images in ``[0, 1]`` to logits ``(n, k)``; it runs in evaluation mode and its
            parameters are left as they were.
        x, y: images ``(n, c, h, w)`` in ``[0, 1]`` and labels ``(n,)`` from 0.
        threat: of the robust loss.
        by: as in :func:`normalized`.
        seed: of all random draws.
        which: its number among the directions of a seed.
        steps, step_size: of PGD, as in :func:`robaudit.flatness.worst`.
        index: ``(n,)`` the examples' positions in their data set, which seed their starting points.
        precision: as in :func:`robaudit.flatness.worst`.
        batch_size: images per pass on a GPU; no result depends on it beyond rounding.
        progress: called with the work done and the work in all.

    Returns:
        The direction, by parameter tensor.

    Raises:
        NotMeasuredError: no change of the weights was found that raises the robust loss.

    Source: Stutz, Hein & Schiele, "Relating adversarially robust generalization to flat minima",
    ICCV 2021, sec. 3.2.

    >>> net, x = nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), torch.rand(3, 1, 2, 2)
    >>> found = adversarial_direction(net, x, torch.zeros(3).long(), ThreatModel("linf", 0.1))
    >>> sorted(found)
    ['1.bias', '1.weight']
    """
    model = effective(model, x)
    found = worst(
        model,
        x,
        y,
        threat,
        restarts=1,
        steps=steps,
        step_size=step_size,
        index=index,
        seed=seed_for(seed, "landscape", which),
        precision=precision,
        batch_size=batch_size,
        progress=progress,
    )
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
