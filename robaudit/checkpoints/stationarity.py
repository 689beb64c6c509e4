"""Whether training came to rest at a normalisation: the loss's gradient in a shift of the input.

Adding a constant per channel to the normalised images acts on the first layer as a change of its
bias (or of the batch norm behind it). Training has moved those until the loss's mean gradient in
them is zero. So under the normalisation of training the mean gradient in the shift is zero up to
sampling noise, and under another it is not, even where accuracy hardly differs.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from robaudit.checkpoints.classifier import Classifier
from robaudit.engine import TILE, device_of, frozen
from robaudit.engine.door import through
from robaudit.types import Examples


def shift_t2(model: Classifier, sample: Examples) -> float:
    """Hotelling's ``T^2 = n g^T S^-1 g`` of the loss's gradient in a shift of the input.

    ``g`` is the mean over examples of the gradient of the cross-entropy in a constant added to
    each channel of the normalised image, ``S`` its sample covariance. Where the true mean is zero,
    ``T^2`` is distributed as chi-squared with as many degrees of freedom as channels.
    """
    device = device_of(model)
    gradients = []
    with frozen(model):
        for x, y in zip(torch.split(sample.x, TILE), torch.split(sample.y, TILE), strict=True):
            shift = torch.zeros(*x.shape[:2], 1, 1, device=device, requires_grad=True)
            with torch.enable_grad():
                logits = through(model.network, model.normalized(x.to(device)) + shift)
                loss = F.cross_entropy(logits, y.to(device), reduction="sum")
                (gradient,) = torch.autograd.grad(loss, shift)
            gradients.append(gradient[:, :, 0, 0].double().cpu())
    return _hotelling(torch.cat(gradients))


def _hotelling(rows: Tensor) -> float:
    mean = rows.mean(0)
    # Scaled first, so that the pseudo-inverse cuts off directions and not units.
    scale = rows.std(0).clamp_min(1e-300)
    covariance = torch.cov((rows / scale).T).reshape(len(scale), len(scale))
    whitened = mean / scale
    return float(len(rows) * whitened @ torch.linalg.pinv(covariance, rtol=1e-10) @ whitened)
