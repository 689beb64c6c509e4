"""Read a network as a graph of affine maps, ReLUs and tanhs."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torchvision.transforms import Normalize

from robaudit.certified.exported import BATCH, RANDOM, exported, refusal
from robaudit.certified.nodes import Graph, Node
from robaudit.certified.reading import Reading, read
from robaudit.engine import Voted, arithmetic, effective, generator
from robaudit.engine.logits import logits_of
from robaudit.errors import NotCertifiableError, NotMeasuredError, RobauditError

__all__ = ["Graph", "Node", "graph_of"]

_BATCHES = (1, 2, 5)
_OTHER = "the graph gives other logits than the network"
_HALF = "the network's logits of float32 images differ from those of float64 images"
# Relative difference of logits that counts as rounding, for networks in float64 and in float32. A
# network that computes in half precision differs by more.
_DOUBLE, _SINGLE = 1e-9, 1e-4


def graph_of(
    model: nn.Module, shape: tuple[int, ...], *, accept: Callable[[Graph], None] | None = None
) -> Graph:
    """The network in evaluation mode as a graph of affine maps, ReLUs and tanhs, in float64.

    Other piecewise linear functions are rewritten exactly, ``max(a, b) = b + relu(a - b)``, and
    ``sigmoid(x) = (1 + tanh(x / 2)) / 2``. A log-softmax of the logits is dropped: it keeps their
    differences. Constants that the network computes are those of its float32 arithmetic. The graph
    is run against the network on random images, in float64 and in float32.

    Args:
        model: images ``(n, *shape)`` in [0, 1] to logits ``(n, k)``; it is left unchanged.
        shape: of one image.
        accept: called with the graph before it is run, which takes long for a large network; it
            may raise.

    Returns:
        The graph, on the CPU.

    Raises:
        NotCertifiableError: the network has another kind of function, or is no function of one
            image at a time.
    """
    own = _copied(model)
    try:
        plain = _without_checks(effective(own))
    except NotMeasuredError as error:
        raise refusal(error.message.partition(":")[0]) from error
    images = torch.zeros(BATCH, *shape, dtype=_dtype(own))
    double = copy.deepcopy(plain).double()
    precise = _reading(double, images.double())
    reading = precise
    if precise is None or (precise.rounded and images.dtype == torch.float32):
        reading = _reading(plain, images)
    if accept is not None and reading is not None:
        accept(reading.graph)
    if precise is not None and not _runs(double, images.double()):
        precise, reading = None, _reading(plain, images)
    if reading is None:
        _logits(own, images)  # perhaps it does not run at all
        raise refusal("torch.export cannot trace the network")
    if precise is not None:
        _check(precise.graph, double, images.double(), _SINGLE if precise.single else _DOUBLE)
    _check(reading.graph, own, images, _SINGLE, _OTHER if precise is None else _HALF)
    return reading.graph


def _reading(network: nn.Module, images: Tensor) -> Reading | None:
    """``None`` where the network cannot be traced with such images."""
    program = exported(network, images)
    return None if program is None else read(program)


def _dtype(network: nn.Module) -> torch.dtype:
    doubles = any(parameter.dtype == torch.float64 for parameter in network.parameters())
    return torch.float64 if doubles else torch.float32


def _copied(model: nn.Module) -> nn.Module:
    while inner := _wrapped(model):
        model = inner
    if isinstance(model, Voted):
        raise refusal(RANDOM)
    memo = {
        id(value): value.detach().clone()
        for module in model.modules()
        for value in vars(module).values()
        if isinstance(value, Tensor) and not value.is_leaf
    }
    try:
        with torch.no_grad():
            own = copy.deepcopy(model, memo).cpu().eval()
    except (RuntimeError, TypeError, ValueError, AttributeError) as error:
        raise refusal("the network cannot be copied") from error
    while found := [(name, b) for name, a in own.named_modules() if (b := _wrapped(a))]:
        own.set_submodule(*found[0])
    for module in own.modules():
        if not isinstance(module, torch.jit.ScriptModule):
            _without_empty_buffers(module)
    return own


def _wrapped(module: nn.Module) -> nn.Module | None:
    """The network that a data-parallel or compiled one wraps; ``None`` of others."""
    inner = module.module if isinstance(module, nn.DataParallel) else None
    inner = getattr(module, "_orig_mod", inner)  # of torch.compile
    return inner if isinstance(inner, nn.Module) else None


def _without_empty_buffers(module: nn.Module) -> None:
    """Buffers that are ``None`` become attributes: torch.export 2.6 miscounts them."""
    for name in [name for name, buffer in module._buffers.items() if buffer is None]:
        del module._buffers[name]
        module._non_persistent_buffers_set.discard(name)
        setattr(module, name, None)


class _Normalized(nn.Module):
    """``(x - mean) / std`` of each channel."""

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        for name, values in (("mean", mean), ("std", std)):
            self.register_buffer(name, torch.as_tensor(values).float()[:, None, None])

    def forward(self, x: Tensor) -> Tensor:
        mean, std = self.get_buffer("mean"), self.get_buffer("std")
        return (x - mean) / std


def _without_checks(network: nn.Module) -> nn.Module:
    """The network with torchvision's normalisation without its branch on the deviations."""
    found = [(name, m) for name, m in network.named_modules() if isinstance(m, Normalize)]
    if found:
        network = copy.deepcopy(network)
    for name, module in found:
        plain = _Normalized(module.mean, module.std)
        if not name:
            return plain
        network.set_submodule(name, plain)
    return network


def _runs(network: nn.Module, images: Tensor) -> bool:
    try:
        _logits(network, images)
    except NotCertifiableError:
        return False
    return True


def _logits(network: nn.Module, images: Tensor) -> Tensor:
    try:
        with torch.no_grad(), arithmetic("fp32"):
            return logits_of(network, images.clone())  # some change their images in place
    except RobauditError as error:
        raise refusal(error.message) from error
    except Exception as error:  # whatever the network's own code raises
        shape = tuple(images.shape)
        raise refusal(f"the network does not run on images of shape {shape}") from error


def _check(
    graph: Graph, network: nn.Module, like: Tensor, allowed: float, reason: str = _OTHER
) -> None:
    """Compare the graph's logits with the network's, in batches of several sizes."""
    draw = generator(0, "images of a graph's check")
    for n in _BATCHES:
        x = torch.rand(n, *like.shape[1:], generator=draw, dtype=torch.float64).to(like.dtype)
        wanted = _logits(network, x).double()
        try:
            with torch.no_grad():
                found = graph(x.double())
        except RuntimeError as error:  # such as of a batch size that is written into the network
            raise refusal(_OTHER) from error
        if found.shape != wanted.shape or not _same(found, wanted, allowed):
            raise refusal(reason)


def _same(found: Tensor, wanted: Tensor, allowed: float) -> bool:
    size = max(1e-6, float(wanted.abs().max()))
    if wanted.shape[1] > 1:  # the network's may be log-softmax of the graph's
        found, wanted = (v - v.mean(1, keepdim=True) for v in (found, wanted))
    return bool((found - wanted).abs().max() <= allowed * size)
