"""The product of the layers' spectral norms."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from robaudit.brief import brief
from robaudit.curvature.layers import find_layers
from robaudit.curvature.thick_restart import extremes
from robaudit.engine import device_of, frozen, generator, idle_parameters
from robaudit.engine.arguments import checked_features
from robaudit.engine.calls import observed
from robaudit.engine.effective import listed
from robaudit.engine.folding import BatchNorm
from robaudit.errors import NotMeasuredError
from robaudit.norms.folded import folded_in_float64

# Matrices up to this size are decomposed; larger ones, and convolutions, are multiplied with.
_DENSE = 512
_PRODUCTS, _HELD = 1000, 40
_TOLERANCE = 1e-6
# Functions that multiply units by functions of units: no linear operator describes them.
_OF_UNITS = frozenset(
    (
        *("layer_norm", "group_norm", "instance_norm", "rms_norm", "local_response_norm"),
        *("normalize", "softmax", "scaled_dot_product_attention", "multi_head_attention_forward"),
        "native_multi_head_attention",
    )
)


@dataclass(frozen=True)
class SpectralNorms:
    """The spectral norms of a network's layers, and their product.

    Attributes:
        product: of all of them; ``inf`` or 0 where float64 does not hold it.
        log: the natural logarithm of the product.
        error: largest relative error of the product, by the residuals of Lanczos.
        layers: the norms by name, in the order of their first calls; of a layer that is called
            several times the calls are numbered.
        folded: batch norms folded into the layer before them.
    """

    product: float
    log: float
    error: float
    layers: dict[str, float]
    folded: int

    __repr__ = brief


@checked_features
def spectral_norms(model: nn.Module, x: Tensor, *, tolerance: float = _TOLERANCE) -> SpectralNorms:
    """``prod_k ||A_k||_2``, ``A_k`` the linear operator of layer ``k`` without its bias.

    A convolution is the operator from its actual input, of its actual height and width, with its
    stride and padding, to its output: not its kernel reshaped to a matrix. Its largest singular
    value is found by Lanczos on ``A^T A``. A batch norm in evaluation mode is folded into the layer
    before it; one that follows no layer is an operator of its own, with norm ``max |scale|``. Every
    call of a layer is a factor.

    The product bounds the Lipschitz constant of a network that is a chain of these layers and
    activations of slope one. Branches, pooling and the input's normalisation are not in it, so that
    it bounds nothing for residual networks. It is invariant where layers are rescaled as a whole
    and the function stays; it is not where single units are.

    Args:
        model: images to logits ``(n, k)``; it is left unchanged.
        x: images ``(n, c, h, w)``, for their shape; the first two are run.
        tolerance: relative error of each norm at which Lanczos stops.

    Returns:
        The product with its logarithm, and the norm of every call of a layer.

    Raises:
        NotMeasuredError: the network has weights outside convolutions and linear layers, or
            normalises by statistics of its units, for which there is no operator; or a norm is zero
            or not found.

    Source: Bartlett, Foster & Telgarsky, "Spectrally-normalized margin bounds for neural networks",
    NeurIPS 2017, the first factor of their spectral complexity; convolutions as operators: Sedghi,
    Gupta & Long, "The singular values of convolutional layers", ICLR 2019.

    >>> net = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    >>> list(spectral_norms(net, torch.rand(5, 1, 2, 2)).layers)
    ['1', '3']
    """
    network, folded = folded_in_float64(model, x)
    with frozen(network):
        factors = _factors(network, x[:2].to(device_of(network), torch.float64), tolerance)
    if not factors:
        raise NotMeasuredError("the network has no convolutions or linear layers")
    for name, (norm, _) in factors.items():
        if not 0 < norm < math.inf:
            raise NotMeasuredError(f"the spectral norm of layer {name} is {norm:g}")
    log = math.fsum(math.log(norm) for norm, _ in factors.values())
    return SpectralNorms(
        product=math.exp(log) if log < 700 else math.inf,
        log=log,
        error=math.expm1(math.fsum(error for _, error in factors.values())),
        layers={name: norm for name, (norm, _) in factors.items()},
        folded=folded,
    )


def _factors(network: nn.Module, x: Tensor, tolerance: float) -> dict[str, tuple[float, float]]:
    """The norm of every call of a layer, with its relative error."""
    owners = {id(module) for layer in find_layers(network) for module in layer.modules}
    layers = {name: m for name, m in network.named_modules() if id(m) in owners}
    norms = {name: m for name, m in network.named_modules() if isinstance(m, BatchNorm)}
    with observed(layers | norms) as calls, torch.no_grad(), _Functions() as used:
        network(x)
    if bad := sorted(used.names & _OF_UNITS):
        raise NotMeasuredError(
            f"the network has {', '.join(bad)}: the product of spectral norms is not defined for it"
        )
    _check_covered(network, {id(call.module) for call in calls}, x)
    found: dict[str, tuple[float, float]] = {}
    known: dict[tuple[str, torch.Size], tuple[float, float]] = {}
    for name, module, inputs, output in calls:
        place, again = name, 1
        while place in found:
            again += 1
            place = f"{name} (call {again})"
        key = name, inputs[0].shape
        if key not in known:
            known[key] = _norm(module, inputs[0][:1], output, tolerance, name)
        found[place] = known[key]
    return found


def _norm(
    module: nn.Module, a: Tensor, output: Tensor, tolerance: float, name: str
) -> tuple[float, float]:
    """Spectral norm of the module on inputs like ``a``, and its relative error."""
    if isinstance(module, BatchNorm):
        if module.running_var is None:
            raise NotMeasuredError(f"batch norm {name} has no running statistics")
        scale = (module.running_var + module.eps).rsqrt()
        scale = scale if module.weight is None else scale * module.weight
        return float(scale.abs().max()), 0.0
    if isinstance(module, nn.Linear):
        if min(module.weight.shape) <= _DENSE:
            # On the CPU: float64 solvers of CUDA are not available everywhere.
            return float(torch.linalg.matrix_norm(module.weight.cpu(), 2)), 0.0
        a = a.reshape(-1, a.shape[-1])[:1]
    assert isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d)
    weight = module.weight.detach()

    def product(v: Tensor) -> Tensor:
        with torch.enable_grad():
            leaf = v.view_as(a).requires_grad_()
            if isinstance(module, nn.Linear):
                moved = nn.functional.linear(leaf, weight)
            else:
                moved = module._conv_forward(leaf, weight, None)
            (back,) = torch.autograd.grad(moved, leaf, moved.detach())
        return back.flatten()

    start = torch.randn(a.numel(), dtype=a.dtype, generator=generator(0, "spectral norm"))
    ritz = extremes(product, start.to(a), _PRODUCTS, largest=1, tolerance=2 * tolerance, held=_HELD)
    square, residual = float(ritz.eigenvalues[-1]), float(ritz.residuals[-1])
    if not square > 0:
        return 0.0, 0.0
    error = residual / (2 * square)
    if not error <= tolerance:
        raise NotMeasuredError(
            f"the spectral norm of layer {name} is known to a relative {error:.1g} only"
        )
    return math.sqrt(square), error


class _Functions(TorchFunctionMode):
    """Records the names of PyTorch's functions that are called inside."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        self.names.add(getattr(func, "__name__", "").strip("_"))
        return func(*args, **(kwargs or {}))


def _check_covered(network: nn.Module, called: set[int], x: Tensor) -> None:
    """Raise if a pass uses weights outside the calls of the measured modules."""
    idle = set(idle_parameters(network, x))
    kept = {
        id(p) for m in network.modules() if id(m) in called for p in m.parameters(recurse=False)
    }
    others = [
        name for name, p in network.named_parameters() if id(p) not in kept and name not in idle
    ]
    if others:
        raise NotMeasuredError(
            "the network has weights outside convolutions, linear layers and batch norms "
            f"({listed(others)}): the product of spectral norms is not defined for it"
        )
