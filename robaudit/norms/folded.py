"""The network whose norms are taken: in float64, effective weights, batch norms folded."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from robaudit.engine import device_of, frozen, in_float64
from robaudit.engine.folding import fold_batch_norm

# Error of the folded logits that counts as rounding in float64, relative to the largest.
_ALLOWED = 1e-9


def folded_in_float64(model: nn.Module, x: Tensor) -> tuple[nn.Module, int]:
    """A copy of the network, and how many batch norms are folded into the layer before them.

    Where folding changes the function nothing is folded.

    Args:
        model: it is left unchanged.
        x: images ``(n, c, h, w)``; the first two are run.

    Raises:
        NotMeasuredError: the network draws at random, or cannot be copied or run in float64.
    """
    double = in_float64(model, x)
    images = x[:2].to(device_of(double), torch.float64)
    found = fold_batch_norm(double, images)
    if found is None:
        return double, 0
    with frozen(double), frozen(found.network), torch.no_grad():
        want, got = double(images), found.network(images)
    same = float((want - got).abs().max()) <= _ALLOWED * float(want.abs().max())
    return (found.network, len(found.affine)) if same else (double, 0)
