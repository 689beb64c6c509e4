"""Read a network as a graph of affine maps, ReLUs and tanhs."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from robaudit.certified.exported import BATCH, exported, refusal
from robaudit.certified.nodes import Graph, Node
from robaudit.certified.reading import read
from robaudit.engine import Voted, effective, generator
from robaudit.engine.logits import logits_of
from robaudit.errors import NotMeasuredError, RobauditError

__all__ = ["Graph", "Node", "graph_of"]

_BATCHES = (1, 2, 5)
_OTHER = "the graph gives other logits than the network"
# Relative difference of logits that counts as rounding, for networks in float64 and in float32.
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
    network = _copied(model)
    images = torch.rand(BATCH, *shape, generator=generator(0, "images of a graph"))
    try:
        plain = effective(network, images)
    except NotMeasuredError as error:
        raise refusal(error.message.partition(":")[0]) from error
    double = copy.deepcopy(plain).double()
    if _runs(double, images.double()):
        plain, images = double, images.double()
    elif not _runs(plain, images):
        raise refusal(f"the network does not run on images of shape {tuple(shape)}")
    graph, single = read(exported(plain, images))
    _check(graph, plain, images, _SINGLE if single else _DOUBLE)
    return graph


def _copied(model: nn.Module) -> nn.Module:
    while isinstance(model, nn.DataParallel):
        model = model.module
    if isinstance(model, Voted):
        raise refusal("the network draws at random")
    memo = {
        id(value): value.detach().clone()
        for module in model.modules()
        for value in vars(module).values()
        if isinstance(value, Tensor) and not value.is_leaf
    }
    try:
        return copy.deepcopy(model, memo).cpu().eval().requires_grad_(False)
    except (RuntimeError, TypeError, ValueError, AttributeError) as error:
        raise refusal("the network cannot be copied") from error


def _runs(network: nn.Module, images: Tensor) -> bool:
    try:
        with torch.no_grad():
            network(images)
    except (RuntimeError, TypeError, ValueError):
        return False
    return True


def _check(graph: Graph, network: nn.Module, like: Tensor, allowed: float) -> None:
    """Compare the graph's logits with the network's, in batches of several sizes."""
    draw = generator(0, "images of a graph's check")
    for n in _BATCHES:
        x = torch.rand(n, *like.shape[1:], generator=draw, dtype=torch.float64)
        try:
            with torch.no_grad():
                found, wanted = graph(x), logits_of(network, x.to(like.dtype)).double()
        except RobauditError as error:
            raise refusal(error.message) from error
        except RuntimeError as error:  # such as of a batch size that is written into the network
            raise refusal(_OTHER) from error
        if found.shape != wanted.shape or not _same(found, wanted, allowed):
            raise refusal(_OTHER)


def _same(found: Tensor, wanted: Tensor, allowed: float) -> bool:
    size = max(1e-12, float(wanted.abs().max()))
    if wanted.shape[1] > 1:  # the network's may be log-softmax of the graph's
        found, wanted = (v - v.mean(1, keepdim=True) for v in (found, wanted))
    return bool((found - wanted).abs().max() <= allowed * size)
