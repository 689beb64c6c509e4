"""Mean and standard deviation of each layer's Hessian eigenvalues."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from robaudit.curvature.double_backward import checked_double_backward
from robaudit.curvature.losses import require_finite
from robaudit.curvature.per_example import plain_attention
from robaudit.curvature.products import block_products
from robaudit.curvature.selection import chosen_parameters, effective_coordinates
from robaudit.curvature.targets import ADVICE, NOTHING, default_parameters, shown_name
from robaudit.engine import effective, frozen, generator
from robaudit.engine.arguments import checked_features
from robaudit.errors import NotMeasuredError, UsageError
from robaudit.types import Progress


@dataclass(frozen=True)
class LayerSpread:
    """Mean and standard deviation of one layer's Hessian eigenvalues.

    Attributes:
        dimension: ``d``, the number of eigenvalues.
        mean: ``Tr(H) / d``.
        mean_standard_error: of ``mean``, over probes.
        deviation: ``sqrt(Tr(H^2) / d - (Tr(H) / d)^2)``.
        standard_error: of ``deviation``, over probes.
    """

    dimension: int
    mean: float
    mean_standard_error: float
    deviation: float
    standard_error: float


@checked_features
def layer_spreads(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    layers: Sequence[str] | None = None,
    probes: int = 10,
    seed: int = 0,
    progress: Progress | None = None,
) -> dict[str, LayerSpread]:
    """Standard deviation of the eigenvalues of every layer's block of the Hessian.

    With Rademacher ``v_k`` over layer k's weight, ``<v_k, H_k v_k>`` has mean ``Tr(H_k)`` and
    ``||H_k v_k||^2`` has mean ``Tr(H_k^2)``: the first two moments of stochastic Lanczos quadrature
    after one step. A probe costs one forward pass, one backward pass, and one more per layer.

    Args:
        model: images to logits ``(n, k)``; it is left unchanged.
        x: images ``(n, c, h, w)``, usually adversarial ones, held fixed.
        y: labels ``(n,)``.
        layers: names of layers or parameters; by default the weights of convolutions, linear
            layers and attention projections.
        probes: number of probes, at least two.
        seed: of the probes.
        progress: called with the probes done and the probes in all.

    Returns:
        Name of the layer to its spread, in the network's order.

    Raises:
        UsageError: no such layer, or fewer than two probes.
        NotMeasuredError: the loss or its second derivative is not finite, or does not exist.

    Source: Wang et al., "Improving robust generalization by direct PAC-Bayesian bound
    minimization", CVPR 2023, Fig. 5.

    >>> _ = torch.manual_seed(2)  # of some small networks the estimate is zero
    >>> net = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    >>> found = layer_spreads(net, torch.rand(5, 1, 2, 2), torch.zeros(5).long())
    >>> found["3"].dimension, found["3"].deviation > 0
    (6, True)
    """
    if probes < 2:
        raise UsageError("standard errors over probes need at least two probes")
    names = list(default_parameters(effective(model, x))) if layers is None else layers
    if layers is None and not names:
        raise NotMeasuredError(NOTHING, ADVICE)
    model, coordinates = effective_coordinates(model, names, x)
    names = coordinates.layers or ()
    with frozen(model), plain_attention(), checked_double_backward(model, x, y, names):
        chosen = chosen_parameters(model, names)
        sizes = [parameter.numel() for parameter in chosen.values()]
        like = next(iter(chosen.values()))
        kept = coordinates.kept
        entries = torch.ones(sum(sizes), dtype=torch.bool).to(like.device) if kept is None else kept
        dimensions = [int(mask.sum()) for mask in torch.split(entries, sizes)]
        moments = torch.empty(2, probes, len(sizes), dtype=torch.float64)
        for probe in range(probes):
            draw = generator(seed, "layer-spread", probe)
            v = (torch.randint(2, (sum(sizes),), generator=draw) * 2 - 1).to(like) * entries
            Hv = block_products(model, x, y, v, layers=names) * entries
            require_finite(Hv, model, x, y)
            parts = zip(torch.split(v, sizes), torch.split(Hv, sizes), strict=True)
            for k, (signs, moved) in enumerate(parts):
                moments[0, probe, k] = (signs * moved).sum(dtype=torch.float64) / dimensions[k]
                moments[1, probe, k] = moved.double().square().sum() / dimensions[k]
            if progress is not None:
                progress(probe + 1, probes)
    spreads = {}
    for k, (name, size) in enumerate(zip(chosen, dimensions, strict=True)):
        first, second = moments[:, :, k]
        deviation, error = deviation_from_moments(first, second)
        spreads[shown_name(name)] = LayerSpread(
            size, float(first.mean()), float(first.std() / probes**0.5), deviation, error
        )
    return spreads


def deviation_from_moments(first: Tensor, second: Tensor) -> tuple[float, float]:
    """``sqrt(E[lambda^2] - E[lambda]^2)`` and its standard error from estimates of both moments.

    The square of an estimated mean is biased upwards by the variance of that mean, which is
    subtracted. The standard error is by the delta method.

    Args:
        first, second: ``(probes,)`` unbiased estimates, one pair per probe.
    """
    probes = len(first)
    mean, own = float(first.mean()), float(first.var()) / probes
    variance = float(second.mean()) - mean**2 + own
    if not variance > 0:  # a multiple of the identity
        return 0.0, 0.0
    deviation = math.sqrt(variance)
    influence = (second / 2 - mean * first) / deviation
    return deviation, float(influence.std() / probes**0.5)
