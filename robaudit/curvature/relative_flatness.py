"""Relative flatness of the top layer."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from robaudit.brief import brief
from robaudit.curvature.chunk_sizes import evenly
from robaudit.curvature.losses import standard_error
from robaudit.curvature.top_layer import top_layer_pass
from robaudit.engine import device_of, effective, frozen, kept_entries
from robaudit.engine.arguments import checked_features
from robaudit.engine.calls import observed
from robaudit.errors import NotMeasuredError


@dataclass(frozen=True)
class RelativeFlatness:
    """The relative flatness of the top layer with its standard error.

    Attributes:
        value: the mean over examples.
        standard_error: over examples; ``nan`` for a single one.
        per_example: ``(n,)`` float64 on the CPU.
        layer: name of the top layer.
    """

    value: float
    standard_error: float
    per_example: Tensor
    layer: str

    __repr__ = brief


@checked_features
def relative_flatness(model: nn.Module, x: Tensor, *, chunk: int = 256) -> RelativeFlatness:
    """``sum_{s,s'} <w_s, w_s'> Tr(H_{s,s'})`` of the last linear layer, for cross-entropy.

    ``w_s`` is the row of the weight that gives logit ``s``, and ``H_{s,s'}`` the block of the
    Hessian of the mean cross-entropy in rows ``s`` and ``s'``. With features ``z`` and softmax
    ``p`` it is ``(p_s [s = s'] - p_s p_s') z z^T``, so that the sum is, exactly,
    ``mean ||z||^2 sum_t Var_{c ~ p}(W_ct)``: the squared norm of the features times the variance
    of the rows under the predicted distribution. It does not depend on labels.

    It is invariant where the layer is scaled by a factor and the features by its inverse, under
    rotations of the features that the layer undoes, and where one vector is added to every row. It
    is not where single features are rescaled by different factors. The bias is not in the sum.

    Args:
        model: images to logits ``(n, k)``; it is left unchanged.
        x: images ``(n, c, h, w)``, held fixed.
        chunk: images per forward pass.

    Returns:
        The value with its standard error over examples.

    Raises:
        NotMeasuredError: the logits are not finite, or not the output of a linear layer, or that
            layer is pruned or used elsewhere.

    Source: Petzka et al., "Relative flatness and generalization", NeurIPS 2021, with the last
    linear layer as the weights.

    >>> net = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    >>> relative_flatness(net, torch.rand(5, 1, 2, 2)).layer
    '3'
    """
    model = effective(model, x)
    pruned = kept_entries(model)
    n = len(x)
    x = torch.cat([x, x]) if n == 1 else x  # networks are not run on a single image
    parts: list[Tensor] = []
    with frozen(model), torch.no_grad():
        device = device_of(model)
        for here in evenly(len(x), chunk):
            layer, z, logits = top_layer_pass(model, x[here].to(device))
            if not parts:
                _check_alone(model, layer, x[:2].to(device))
                if f"{layer}.weight".lstrip(".") in pruned:
                    raise NotMeasuredError(f"the top layer {layer} has pruned entries")
                top = model.get_submodule(layer)
                assert isinstance(top, nn.Linear)
                apart = _distances(top.weight.double())
            p = logits.softmax(1)
            # Var_{c ~ p}(W_c) from distances: nothing cancels where one class has nearly all of p
            variance = ((p @ apart) * p).sum(1) / 2
            parts.append((z.square().sum(1) * variance).cpu())
    per_example = torch.cat(parts)[:n]
    return RelativeFlatness(
        float(per_example.mean()), standard_error(per_example), per_example, layer
    )


def _distances(rows: Tensor) -> Tensor:
    """``||w_c - w_c'||^2``, ``(k, k)``, of rows ``(k, d)``."""
    return torch.stack([(rows - row).square().sum(1) for row in rows])


def _check_alone(model: nn.Module, layer: str, x: Tensor) -> None:
    """Raise unless the top layer's weight is used once in a pass, and by no other module."""
    top = model.get_submodule(layer)
    holders = {
        name: module
        for name, module in model.named_modules()
        if any(held is top.weight for held in module.parameters(recurse=False))
    }
    with observed(holders) as calls:
        model(x)
    if len(calls) > 1:
        raise NotMeasuredError(
            f"the weight of the top layer {layer} is used {len(calls)} times in a pass"
        )
