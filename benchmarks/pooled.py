"""PyHessian, and pooled Hutchinson probes as it draws them."""

from __future__ import annotations

import copy
import time
import warnings
from contextlib import contextmanager

import torch
from torch import nn

from robaudit.curvature.products import hessian_product
from robaudit.engine import frozen


@contextmanager
def pyhessian(model, x, y):
    """PyHessian on a copy of the model and one batch, which lets it keep one graph for all."""
    from pyhessian import hessian

    own = copy.deepcopy(model).requires_grad_(True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of create_graph with backward(), which is its way
        yield hessian(own, nn.CrossEntropyLoss(), data=(x, y), cuda=False)
    for parameter in own.parameters():
        parameter.grad = None  # or its graph lives on


def trace(model, x, y, seed=0):
    """Its ``trace()`` at its defaults: the probes' values, and seconds with all it takes."""
    torch.manual_seed(seed)
    start = time.perf_counter()
    with pyhessian(model, x, y) as peer:
        probes = peer.trace()
    return probes, time.perf_counter() - start


def probe_values(model, x, y, layers, probes):
    """``(probes, layers)``: what single pooled probes say about each layer's trace."""
    sizes = {name: parameter.numel() for name, parameter in model.named_parameters()}
    rows = []
    with frozen(model):
        product = hessian_product(model, x, y)
        for probe in range(probes):
            draw = torch.Generator().manual_seed(probe)
            v = (torch.randint(2, (sum(sizes.values()),), generator=draw) * 2 - 1).float()
            parts = dict(
                zip(sizes, (v * product(v)).double().split([*sizes.values()]), strict=True)
            )
            rows.append([float(parts[f"{layer}.weight"].sum()) for layer in layers])
    return torch.tensor(rows, dtype=torch.float64)
