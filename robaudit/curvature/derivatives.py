"""Check a network's first and second derivatives in its weights.

A custom backward pass that records no graph, or that uses saved intermediate results, gives correct
gradients and wrong products with the Hessian, without an error. So derivatives are compared with
central differences before they are used.
"""

from __future__ import annotations

import copy
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robaudit.curvature.faulty_modules import module_with_wrong_derivative
from robaudit.curvature.finite_differences import Derivative, wrong_derivatives
from robaudit.curvature.selection import chosen_parameters
from robaudit.engine import device_of, generator
from robaudit.engine.raised import is_foreign
from robaudit.errors import NotMeasuredError

_IMAGES = 4


@dataclass(frozen=True)
class DerivativeErrors:
    """For each kind of derivative, why it cannot be used; ``None`` where it can."""

    gradient: str | None
    gauss_newton: str | None
    hessian: str | None


class NoSecondDerivativeError(NotMeasuredError):
    """A network whose gradient is correct but has no derivative, or a wrong one."""


def check_derivatives(
    model: nn.Module, x: Tensor, needs: Derivative, layers: Sequence[str] | None = None
) -> None:
    """Raise if a derivative that is needed is wrong.

    On a random draw of the examples, in float64 where the network can be copied to that, for a loss
    of the logits that does not saturate; see
    :func:`robaudit.curvature.finite_differences.wrong_derivatives`. The result is cached for each
    network until its tensors or the examples change.

    Args:
        model: frozen.
        x: images ``(n, c, h, w)``.
        needs: the highest derivative that is used: the gradient, products with the Gauss-Newton
            matrix, or with the Hessian.
        layers: see :func:`robaudit.curvature.selection.chosen_parameters`.

    Raises:
        NotMeasuredError: the gradient is wrong; names the module where one is found.
        NoSecondDerivativeError: the gradient is correct and its derivative is not.
    """
    found = _verdict(model, x, layers)
    if found.gradient is not None:
        raise NotMeasuredError(found.gradient)
    second = {"hessian": found.hessian, "gauss-newton": found.gauss_newton}.get(needs)
    if second is not None:
        raise NoSecondDerivativeError(second)


_last: dict[int, tuple[weakref.ref[nn.Module], object, DerivativeErrors]] = {}


def _verdict(model: nn.Module, x: Tensor, layers: Sequence[str] | None) -> DerivativeErrors:
    stamp = (
        [(p.data_ptr(), p._version) for p in [*model.parameters(), *model.buffers()]],
        (x.data_ptr(), x._version, tuple(x.shape)),
        None if layers is None else tuple(layers),
    )
    known = _last.get(id(model))
    if known is not None and known[0]() is model and known[1] == stamp:
        return known[2]
    found = _examined(model, x, layers)
    for key in [key for key, (held, _, _) in _last.items() if held() is None]:
        del _last[key]
    _last[id(model)] = weakref.ref(model), stamp, found
    return found


def _examined(model: nn.Module, x: Tensor, layers: Sequence[str] | None) -> DerivativeErrors:
    rows = torch.randperm(len(x), generator=generator(0, "derivatives"))[:_IMAGES]
    images = x[rows if len(rows) > 1 else rows.repeat(2)].to(device_of(model))
    names = list(chosen_parameters(model, layers))
    network = _copied(model, images, torch.float64) or _copied(model, images, images.dtype)
    if network is None:  # a network that cannot be copied is not checked
        return DerivativeErrors(None, None, None)
    like = next(network.parameters())
    double = like.dtype == torch.float64
    images = images.to(like) if double else images
    wrong = _compared(network, images, names)
    words: Mapping[Derivative, str] = {
        "gradient": "the loss's gradient in the weights is not its derivative",
        "gauss-newton": "products with the logits' Jacobian are not the logits' derivative",
        "hessian": "the second derivative in the weights is not the gradient's derivative",
    }
    said: dict[Derivative, str | None] = {}
    for needs, off in wrong.items():
        if off is None:
            said[needs] = None
            continue
        name = module_with_wrong_derivative(network, images, needs)
        where = f": see {name}" if name else ""
        kind = "float64" if double else "float32"
        said[needs] = f"{words[needs]} (relative error {off:.2g} in {kind}){where}"
    return DerivativeErrors(said["gradient"], said["gauss-newton"], said["hessian"])


def _compared(network: nn.Module, x: Tensor, names: list[str]) -> dict[Derivative, float | None]:
    """Of a copy, whose parameters are moved in place: compiled scripts accept no others."""
    parameters = [p for n, p in network.named_parameters() if n in set(names)]
    for parameter in parameters:
        parameter.requires_grad_()
    with torch.no_grad():
        first = network(x)
    size = first.abs().amax(1, keepdim=True).clamp_min(1e-6)
    y = torch.randint(first.shape[1], (len(x),), generator=generator(0, "labels")).to(x.device)
    return wrong_derivatives(
        lambda: network(x), lambda z: F.cross_entropy(3 * z / size, y), parameters
    )


def _copied(model: nn.Module, x: Tensor, kind: torch.dtype) -> nn.Module | None:
    """A copy in another type; ``None`` if that fails or changes the logits."""
    try:
        found = copy.deepcopy(model).to(kind)
        with torch.no_grad():
            own, other = model(x).double(), found(x.to(kind))
    except BaseException as error:
        if not is_foreign(error):
            raise
        return None  # its code does not support the type
    same = float((own - other).abs().max()) <= 1e-2 * float(own.abs().max())
    return found if same and other.dtype == kind else None
