"""Read a network as a graph of affine maps, ReLUs and tanhs."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from robaudit.certified.exported import BATCH, exported
from robaudit.certified.nodes import Graph, Node
from robaudit.certified.reading import read
from robaudit.engine import Voted, effective, evaluating, generator
from robaudit.engine.logits import logits_of
from robaudit.errors import NotCertifiableError, NotMeasuredError, RobauditError

__all__ = ["Graph", "Node", "graph_of"]

_BATCHES = (1, 2, 5)
# Relative difference between the graph's logits and the network's that counts as rounding.
_DOUBLE, _SINGLE = 1e-9, 1e-4


def graph_of(model: nn.Module, shape: tuple[int, ...]) -> Graph:
    """The network in evaluation mode as a graph of affine maps, ReLUs and tanhs, in float64.

    Other piecewise linear functions are rewritten exactly, ``max(a, b) = b + relu(a - b)``, and
    ``sigmoid(x) = (1 + tanh(x / 2)) / 2``. A log-softmax of the logits is dropped: it keeps their
    differences. The graph is run against the network on random images.

    Args:
        model: images ``(n, *shape)`` in [0, 1] to logits ``(n, k)``; it is left unchanged.
        shape: of one image.

    Returns:
        The graph, on the CPU.

    Raises:
        NotCertifiableError: the network has another kind of function, or is no function of one
            image at a time.
    """
    own = _copied(model)
    images = torch.rand(BATCH, *shape, generator=generator(0, "images of a graph"))
    try:
        plain = effective(own, images)
    except NotMeasuredError as error:
        reason = error.message.partition(":")[0]
        raise NotCertifiableError(f"not certifiable: {reason}") from error
    graph = read(exported(plain, images))
    _check(graph, plain, shape)
    return graph


def _copied(model: nn.Module) -> nn.Module:
    while isinstance(model, nn.DataParallel):
        model = model.module
    if isinstance(model, Voted):
        raise NotCertifiableError("not certifiable: the network draws at random")
    memo = {
        id(value): value.detach().clone()
        for module in model.modules()
        for value in vars(module).values()
        if isinstance(value, Tensor) and not value.is_leaf
    }
    try:
        return copy.deepcopy(model, memo).cpu().eval().requires_grad_(False)
    except (RuntimeError, TypeError, ValueError, AttributeError) as error:
        raise NotCertifiableError("not certifiable: the network cannot be copied") from error


def _check(graph: Graph, plain: nn.Module, shape: tuple[int, ...]) -> None:
    """Compare the graph's logits with the network's, in batches of several sizes."""
    draw = generator(0, "images of a graph's check")
    double = copy.deepcopy(plain).double()
    for n in _BATCHES:
        x = torch.rand(n, *shape, generator=draw, dtype=torch.float64)
        found = graph(x)
        wanted, allowed = _logits(double, plain, x)
        off = (found - found[:, :1] - (wanted - wanted[:, :1])).abs().max()
        size = max(1e-12, float(wanted.abs().max()), float(found.abs().max()))
        if found.shape != wanted.shape or not float(off) <= allowed * size:
            raise NotCertifiableError(
                "not certifiable: the graph gives other logits than the network"
            )


def _logits(double: nn.Module, plain: nn.Module, x: Tensor) -> tuple[Tensor, float]:
    with torch.no_grad(), evaluating(double), evaluating(plain):
        try:
            return logits_of(double, x), _DOUBLE
        except (RuntimeError, TypeError, ValueError):  # a network that computes in float32 only
            return logits_of(plain, x.float()).double(), _SINGLE
        except RobauditError as error:
            raise NotCertifiableError(f"not certifiable: {error.message}") from error
