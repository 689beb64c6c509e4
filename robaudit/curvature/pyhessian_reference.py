"""Trace and largest eigenvalues by PyHessian, for comparison."""

from __future__ import annotations

import copy
import warnings
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from robaudit.curvature.double_backward import checked_double_backward
from robaudit.engine import (
    arithmetic,
    device_of,
    effective,
    frozen,
    kept_entries,
    seed_for,
)
from robaudit.engine.arguments import checked_features
from robaudit.errors import NotMeasuredError


@dataclass(frozen=True)
class PyHessian:
    """Results of PyHessian at its defaults.

    Attributes:
        eigenvalues: the largest in absolute value, by power iteration without residuals.
        trace: mean of its Hutchinson probes.
        trace_standard_error: of that mean, from the spread of the probes; ``nan`` for one probe.
            PyHessian stops on a running mean and gives no error.
        probes: number of probes until its stopping rule applied.
    """

    eigenvalues: tuple[float, ...]
    trace: float
    trace_standard_error: float
    probes: int


@checked_features
def pyhessian(
    model: nn.Module, x: Tensor, y: Tensor, *, top: int = 1, seed: int = 0, chunk: int = 256
) -> PyHessian:
    """Trace and largest eigenvalues of the Hessian by PyHessian at its defaults.

    It runs on a copy of the model, since it fills ``grad`` and changes modes. Its density does not
    run on current torch and is left out. Weights are the effective ones.

    Args:
        model: images to logits ``(n, k)``; it is left unchanged.
        x: images ``(n, c, h, w)``, usually adversarial ones, held fixed.
        y: labels ``(n,)``.
        top: number of eigenvalues.
        seed: of its random vectors.
        chunk: images per batch.

    Returns:
        Eigenvalues and trace, with the standard error of the trace.

    Raises:
        NotMeasuredError: the network has pruned weights.

    Source: Yao et al., "PyHessian: neural networks through the lens of the Hessian", 2020; package
    ``pyhessian``.

    >>> net = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    >>> found = pyhessian(net, torch.rand(5, 1, 2, 2), torch.zeros(5).long())
    >>> len(found.eigenvalues)
    1
    """
    from pyhessian import hessian

    model = effective(model, x)
    if kept_entries(model):
        raise NotMeasuredError("PyHessian does not support pruning: it would count pruned entries")
    device = device_of(model)
    batches = list(zip(torch.split(x, chunk), torch.split(y, chunk), strict=True))
    with frozen(model), checked_double_backward(model, x, y):
        own = copy.deepcopy(model).requires_grad_(True)
    with (
        arithmetic("fp32"),
        torch.random.fork_rng(),
        torch.enable_grad(),
        sdpa_kernel(SDPBackend.MATH),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")  # about create_graph with backward()
        torch.manual_seed(seed_for(seed, "pyhessian"))
        peer = hessian(own, nn.CrossEntropyLoss(), dataloader=batches, cuda=device.type == "cuda")
        probes = torch.tensor(peer.trace(), dtype=torch.float64)
        eigenvalues, _ = peer.eigenvalues(top_n=top)
    return PyHessian(
        eigenvalues=tuple(float(value) for value in eigenvalues),
        trace=float(probes.mean()),
        trace_standard_error=float(probes.std() / len(probes) ** 0.5),
        probes=len(probes),
    )
