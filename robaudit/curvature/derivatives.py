"""Check a network's first and second derivatives in its weights.

A custom backward pass that records no graph, or that uses saved intermediate results, gives correct
gradients and wrong products with the Hessian, without an error. So derivatives are compared with
central differences before they are used.
"""

from __future__ import annotations

import copy
import weakref
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robaudit.curvature.faulty_modules import module_with_wrong_derivative
from robaudit.curvature.finite_differences import Derivative, wrong_derivatives
from robaudit.curvature.selection import chosen_parameters
from robaudit.engine import device_of, generator
from robaudit.engine.raised import is_foreign
from robaudit.errors import NotMeasuredError

_IMAGES = 2


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
    kinds: list[Derivative] = ["gradient"] if needs == "gradient" else ["gradient", needs]
    for kind, words in _verdict(model, x, layers, kinds).items():
        if words is not None:
            raise (NotMeasuredError if kind == "gradient" else NoSecondDerivativeError)(words)


# For each kind of derivative that was compared, why it cannot be used; ``None`` where it can.
Verdict = dict[Derivative, str | None]
_last: dict[int, tuple[weakref.ref[nn.Module], object, Verdict]] = {}
_WORDS: Mapping[Derivative, str] = {
    "gradient": "the loss's gradient in the weights is not its derivative",
    "gauss-newton": "products with the logits' Jacobian are not the logits' derivative",
    "hessian": "the second derivative in the weights is not the gradient's derivative",
}


def _verdict(
    model: nn.Module, x: Tensor, layers: Sequence[str] | None, kinds: Sequence[Derivative]
) -> Verdict:
    stamp = (
        [(p.data_ptr(), p._version) for p in [*model.parameters(), *model.buffers()]],
        (x.data_ptr(), x._version, tuple(x.shape)),
        None if layers is None else tuple(layers),
    )
    for key in [key for key, (held, _, _) in _last.items() if held() is None]:
        del _last[key]
    held, known, found = _last.get(id(model), (weakref.ref(model), stamp, {}))
    if held() is not model or known != stamp:
        found = {}
    missing = [kind for kind in kinds if kind not in found]
    if missing:
        found = found | _examined(model, x, layers, missing)
        _last[id(model)] = weakref.ref(model), stamp, found
    return {kind: found[kind] for kind in kinds}


def _examined(
    model: nn.Module, x: Tensor, layers: Sequence[str] | None, kinds: Sequence[Derivative]
) -> Verdict:
    rows = torch.randperm(len(x), generator=generator(0, "derivatives"))[:_IMAGES]
    images = x[rows if len(rows) > 1 else rows.repeat(2)].to(device_of(model))
    names = list(chosen_parameters(model, layers))
    copied = _copied(model, images, torch.float64) or _copied(model, images, images.dtype)
    if copied is None:  # a network that cannot be copied is not checked
        return dict.fromkeys(kinds)
    network, logits = copied
    images = images.to(logits.dtype)
    dtype, said = str(logits.dtype).removeprefix("torch."), Verdict()
    for kind, off in _compared(network, images, logits, names, kinds).items():
        if off is None:
            said[kind] = None
            continue
        name = module_with_wrong_derivative(network, images, kind)
        where = f": see {name}" if name else ""
        said[kind] = f"{_WORDS[kind]} (relative error {off:.2g} in {dtype}){where}"
    return said


def _compared(
    network: nn.Module, x: Tensor, logits: Tensor, names: list[str], kinds: Sequence[Derivative]
) -> dict[Derivative, float | None]:
    """Of a copy, whose parameters are moved in place: compiled scripts accept no others."""
    parameters = [p for n, p in network.named_parameters() if n in set(names)]
    for parameter in parameters:
        parameter.requires_grad_()
    size = logits.abs().amax(1, keepdim=True).clamp_min(1e-6)
    y = torch.randint(logits.shape[1], (len(x),), generator=generator(0, "labels")).to(x.device)
    return wrong_derivatives(
        lambda: network(x), lambda z: F.cross_entropy(3 * z / size, y), parameters, kinds
    )


def _copied(model: nn.Module, x: Tensor, kind: torch.dtype) -> tuple[nn.Module, Tensor] | None:
    """A copy in another type, and its logits; ``None`` if that fails or changes them."""
    try:
        found = copy.deepcopy(model).to(kind)
        with torch.no_grad():
            own, logits = model(x), found(x.to(kind))
    except BaseException as error:
        if not is_foreign(error):
            raise
        return None  # its code does not support the type
    same = float((own.double() - logits).abs().max()) <= 1e-2 * float(own.abs().max())
    return (found, logits) if same and logits.dtype == kind else None
