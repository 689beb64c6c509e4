"""The path norm."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from robaudit.engine import device_of, frozen
from robaudit.engine.arguments import checked_features
from robaudit.errors import NotMeasuredError
from robaudit.norms.folded import folded_in_float64
from robaudit.norms.paths import Paths


@dataclass(frozen=True)
class PathNorm:
    """The path norm of a network.

    Attributes:
        value: the norm.
        log: its natural logarithm.
        folded: batch norms folded into the layer before them.
    """

    value: float
    log: float
    folded: int


@checked_features
def path_norm(model: nn.Module, x: Tensor) -> PathNorm:
    """``sqrt(sum over paths of the product of squared weights)``, from the pixels to the logits.

    A path goes from a pixel, or from a bias, through one weight of each layer to a logit. The sum
    is one forward pass of the network with squared weights on an image of ones:

    - convolutions, linear layers, and batch norms in evaluation mode, which are folded into the
      layer before them, or else a scale and a shift of their own: weights and biases squared;
    - ReLU and leaky ReLU: passed through, since every unit is on some path;
    - average pooling and means: linear, with weights ``1 / k``, squared to ``1 / k^2``;
    - max pooling: every entry of the window is an edge of weight one, so that sums take its place;
    - sums of branches add paths; products with constants, the input's normalisation among them,
      are weights, and constants that are added are biases.

    It does not depend on data, and not on rescalings of units that leave a network of ReLUs the
    same function, biases included. Common code instead runs the network itself with squared
    parameters, where averages stay averages, maxima stay maxima, and batch norms are squared apart.

    Args:
        model: images to logits ``(n, k)``; it is left unchanged.
        x: images ``(n, c, h, w)``, for their shape; the first two are run to compare copies.

    Returns:
        The norm and its logarithm.

    Raises:
        NotMeasuredError: the network has operations for which paths are not defined, such as
            smooth activations, attention or layer norm; it names the first. Or the norm is not a
            positive number of float64.

    Source: Neyshabur, Tomioka & Srebro, "Norm-based capacity control in neural networks", COLT
    2015 (p = 2); biases, max pooling and residual networks as in Gonon et al., "A path-norm toolkit
    for modern networks", ICLR 2024.

    >>> net = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    >>> path_norm(net, torch.rand(5, 1, 2, 2)).value > 0
    True
    """
    network, folded = folded_in_float64(model, x)
    ones = torch.ones(2, *x.shape[1:], dtype=torch.float64, device=device_of(network))
    with frozen(network), torch.no_grad():
        out = network(ones.as_subclass(Paths))
    if not isinstance(out, Paths):
        raise NotMeasuredError(
            "the path norm is not defined for this network: it has a compiled part"
        )
    total = float(out.plain[0].sum())
    if not 0 < total < math.inf:
        raise NotMeasuredError(f"the sum over paths is {total:g} in float64")
    return PathNorm(math.sqrt(total), math.log(total) / 2, folded)
