"""Are a network's first and second derivatives in its weights those of what it computes?

Automatic differentiation believes every backward pass that a network brings along. One that leaves
no graph behind, or that is written in terms of saved intermediates, gives right gradients and wrong
products with the Hessian, without a word. So the derivatives are held against central differences
before a number rests on them.
"""

from __future__ import annotations

import copy
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from robaudit.curvature.liars import lying_module
from robaudit.curvature.selection import chosen_parameters
from robaudit.engine import device_of, generator
from robaudit.engine.raised import is_foreign
from robaudit.errors import NotMeasuredError

Needs = Literal["gradient", "gauss-newton", "hessian"]
Tensors = list[Tensor]

_IMAGES = 4


@dataclass(frozen=True)
class Arithmetic:
    """What central differences can tell in a type of numbers.

    Attributes:
        steps: of each tensor, in units of its norm; one for every draw.
        same: what a difference and that at half its step may be apart, to count.
        off: what a derivative and the difference may be apart.
    """

    steps: tuple[float, ...]
    same: float
    off: float


FLOAT64 = Arithmetic((1e-6, 1e-6, 1e-7, 1e-8), 1e-3, 1e-2)
FLOAT32 = Arithmetic((1e-2, 1e-2, 3e-3, 3e-3), 0.1, 0.5)


@dataclass(frozen=True)
class Verdict:
    """Why the derivatives of each kind cannot be used; ``None`` where they can."""

    gradient: str | None
    gauss_newton: str | None
    hessian: str | None


class NoSecondDerivativeError(NotMeasuredError):
    """A network whose gradient is right and cannot be differentiated again."""


def check_derivatives(
    model: nn.Module, x: Tensor, needs: Needs, layers: Sequence[str] | None = None
) -> None:
    """Raise where a derivative that a number is to rest on is another function's.

    On a random draw of the examples, in float64 where the network can be copied to that, for random
    directions ``v`` in the weights and a loss ``L`` of the logits that does not saturate:
    ``<dL/dw, v>`` against ``(L(w + h v) - L(w - h v)) / 2 h``; ``J v``, by differentiating ``J^T
    u``, against the logits' differences; ``H v`` against the gradients'. What half the step does
    not confirm, or is another thing to either side, because a unit of ReLU switches on the way, is
    no witness. The last network and examples are remembered.

    Args:
        model: frozen.
        needs: the highest that is used: gradients, products with the Gauss-Newton matrix, or with
            the Hessian.
        layers: see :func:`robaudit.curvature.selection.chosen_parameters`.

    Raises:
        NotMeasuredError: the gradient is wrong; with the module, where one is found.
        NoSecondDerivativeError: the gradient is right and what differentiates it again is not.
    """
    found = _verdict(model, x, layers)
    if found.gradient is not None:
        raise NotMeasuredError(found.gradient)
    second = {"hessian": found.hessian, "gauss-newton": found.gauss_newton}.get(needs)
    if second is not None:
        raise NoSecondDerivativeError(second)


_last: dict[int, tuple[weakref.ref[nn.Module], object, Verdict]] = {}


def _verdict(model: nn.Module, x: Tensor, layers: Sequence[str] | None) -> Verdict:
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


def _examined(model: nn.Module, x: Tensor, layers: Sequence[str] | None) -> Verdict:
    rows = torch.randperm(len(x), generator=generator(0, "derivatives"))[:_IMAGES]
    images = x[rows if len(rows) > 1 else rows.repeat(2)].to(device_of(model))
    names = list(chosen_parameters(model, layers))
    network = _copied(model, images, torch.float64) or _copied(model, images, images.dtype)
    if network is None:  # what cannot be copied is not moved about
        return Verdict(None, None, None)
    like = next(network.parameters())
    double = like.dtype == torch.float64
    images = images.to(like) if double else images
    wrong = _compared(network, images, names, FLOAT64 if double else FLOAT32)
    words: Mapping[Needs, str] = {
        "gradient": "the loss's gradient in the weights is not its derivative",
        "gauss-newton": "products with the logits' Jacobian are not what the logits do",
        "hessian": "the second derivative in the weights is not the gradient's",
    }
    said: dict[Needs, str | None] = {}
    for needs, off in wrong.items():
        if off is None:
            said[needs] = None
            continue
        name = lying_module(network, images, first=needs == "gradient")
        where = f": see {name}" if name else ""
        kind = "float64" if double else "float32"
        said[needs] = f"{words[needs]} (off by {off:.2g} of it in {kind}){where}"
    return Verdict(said["gradient"], said["gauss-newton"], said["hessian"])


def _compared(
    network: nn.Module, x: Tensor, names: list[str], arithmetic: Arithmetic
) -> dict[Needs, float | None]:
    """By what share each kind of derivative is off, where it is and no draw disagrees.

    Args:
        network: a copy, whose parameters are moved: compiled scripts take no others in their place.
    """
    parameters = [p for n, p in network.named_parameters() if n in set(names)]
    here = [p.detach().clone() for p in parameters]
    for parameter in parameters:
        parameter.requires_grad_()
    with torch.no_grad():
        first = network(x)
    size = first.abs().amax(1, keepdim=True).clamp_min(1e-6)
    y = torch.randint(first.shape[1], (len(x),), generator=generator(0, "labels")).to(x.device)

    def logits(moves: Tensors, step: float) -> Tensor:
        with torch.no_grad():
            for parameter, place, move in zip(parameters, here, moves, strict=True):
                parameter.copy_(place + step * move)
        out: Tensor = network(x)
        return out

    def loss(logits: Tensor) -> Tensor:
        value: Tensor = F.cross_entropy(3 * logits / size, y)
        return value

    found: dict[Needs, list[float]] = {"gradient": [], "gauss-newton": [], "hessian": []}
    for attempt, step in enumerate(arithmetic.steps):
        draw = generator(0, "derivative", attempt)
        # Every other draw leaves biases alone: at zero they sit on a kink of what reads only them.
        v = [_direction(place, draw, bool(attempt % 2)) for place in here]
        told = _derivatives(logits, loss, parameters, v)
        if not told:  # the logits do not depend on these
            break
        whole, half = _differences(logits, loss, parameters, v, (step, step / 2))
        for needs, own in told.items():
            off = _off(own, whole[needs], half[needs], arithmetic.same)
            if off is not None:
                found[needs].append(off)
        if all(min(offs, default=1) <= arithmetic.off or len(offs) > 1 for offs in found.values()):
            break
    return {
        needs: min(offs) if offs and not min(offs) <= arithmetic.off else None
        for needs, offs in found.items()
    }


def _direction(tensor: Tensor, draw: torch.Generator, still: bool) -> Tensor:
    """Random, as long as the tensor itself; none in a vector that is to keep still."""
    if still and tensor.dim() < 2:
        return torch.zeros_like(tensor)
    v = torch.randn(tensor.shape, generator=draw).to(tensor)
    found: Tensor = v * (tensor.norm().clamp_min(1e-2) / v.norm().clamp_min(1e-12))
    return found


def _derivatives(
    logits: Callable[[Tensors, float], Tensor],
    loss: Callable[[Tensor], Tensor],
    inputs: Sequence[Tensor],
    v: Tensors,
) -> dict[Needs, list[Tensor]]:
    """``<g, v>``, ``J v`` and ``H v`` as automatic differentiation has them."""
    found: dict[Needs, list[Tensor]] = {}
    with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
        z = logits(v, 0.0)
        if not z.requires_grad:
            return {}
        gradients = torch.autograd.grad(loss(z), inputs, create_graph=True, materialize_grads=True)
        slope = _along(gradients, v)
        found["gradient"] = [slope.detach()]
        try:
            u = torch.zeros_like(z, requires_grad=True)
            back = torch.autograd.grad(z, inputs, u, create_graph=True, materialize_grads=True)
            found["gauss-newton"] = _differentiated(_along(back, v), [u])
            found["hessian"] = _differentiated(slope, inputs)
        except RuntimeError as error:  # there is no second derivative: obstacles says so
            if not is_foreign(error):
                raise
    return found


def _differences(
    logits: Callable[[Tensors, float], Tensor],
    loss: Callable[[Tensor], Tensor],
    inputs: Sequence[Tensor],
    v: Tensors,
    steps: Sequence[float],
) -> list[dict[Needs, list[tuple[Tensor, Tensor]]]]:
    """The same by central differences, for each step; and how far the middle is from their mean."""
    kinds: tuple[Needs, ...] = ("gradient", "gauss-newton", "hessian")

    def at(step: float) -> dict[Needs, list[Tensor]]:
        with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
            z = logits(v, step)
            value = loss(z)
            gradients = torch.autograd.grad(value, inputs, materialize_grads=True)
        parts = [value.detach()], [z.detach()], list(gradients)
        return dict(zip(kinds, parts, strict=True))

    middle = at(0.0)
    found = []
    for step in steps:
        ahead, behind = at(step), at(-step)
        found.append(
            {
                kind: [
                    ((a - b) / (2 * step), (a + b - 2 * c) / (2 * step))
                    for a, b, c in zip(ahead[kind], behind[kind], middle[kind], strict=True)
                ]
                for kind in kinds
            }
        )
    return found


def _off(
    own: Sequence[Tensor],
    whole: Sequence[tuple[Tensor, Tensor]],
    half: Sequence[tuple[Tensor, Tensor]],
    same: float,
) -> float | None:
    """The largest share by which a tensor is off, of those whose differences agree and count."""
    sizes = [max(float(a.norm()), float(b.norm())) for a, (b, _) in zip(own, whole, strict=True)]
    least = 1e-3 * max(sizes)
    shares = [
        float((a - b).norm()) / size
        for a, (b, bent), (c, _), size in zip(own, whole, half, sizes, strict=True)
        if size > least
        and float((b - c).norm()) <= same * size
        and float(bent.norm()) <= same * size
    ]
    return max(shares, default=None)


def _along(gradients: Sequence[Tensor], ways: Sequence[Tensor]) -> Tensor:
    return torch.stack([(g * way).sum() for g, way in zip(gradients, ways, strict=True)]).sum()


def _differentiated(value: Tensor, inputs: Sequence[Tensor]) -> list[Tensor]:
    if not value.requires_grad:
        return [torch.zeros_like(tensor) for tensor in inputs]
    return list(torch.autograd.grad(value, inputs, retain_graph=True, materialize_grads=True))


def _copied(model: nn.Module, x: Tensor, kind: torch.dtype) -> nn.Module | None:
    """A copy in another type; none where it cannot be made, or is another network."""
    try:
        found = copy.deepcopy(model).to(kind)
        with torch.no_grad():
            own, other = model(x).double(), found(x.to(kind))
    except BaseException as error:
        if not is_foreign(error):
            raise
        return None  # whatever its code does with another type
    same = float((own - other).abs().max()) <= 1e-2 * float(own.abs().max())
    return found if same and other.dtype == kind else None
