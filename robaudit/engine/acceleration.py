"""Faster forms of a network, each compared with the original before it is used."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from robaudit.engine.calls import observed
from robaudit.engine.device import device_of
from robaudit.engine.edges import mixture_gradient
from robaudit.engine.folding import Folded, fold_batch_norm
from robaudit.engine.freezing import frozen
from robaudit.engine.images import rows_of
from robaudit.engine.logits import Forward
from robaudit.engine.precision import Asked, Precision, arithmetic, candidates
from robaudit.engine.projections import Ball
from robaudit.engine.raised import is_foreign, recurs
from robaudit.engine.seeding import uniform_rows
from robaudit.engine.straight import StraightThrough, as_written
from robaudit.engine.voting import Voted
from robaudit.errors import NotMeasuredError, error_line
from robaudit.types import ThreatModel

_Sensitivity = tuple[Tensor, Tensor | None]
CHANNELS_LAST = "channels last"

# Number of noise images on which a candidate is compared, the same for every data set, and of the
# audited images, each as it is and perturbed.
_NOISE = 16
_EXAMPLES = 8

# Channels-last order slows down convolutions of few input channels, and is used where these do
# little of the work. On a CPU, a forward and backward pass of six networks in which they do 1 to 13
# % of the multiplications took 0.62 to 0.90 of its time, of two with 27 and 37 % 1.18 and 0.96 (and
# the forward pass 1.33 and 1.13).
_FEW_CHANNELS = 8
_FEW_CHANNELS_WORK = 0.2

# bfloat16 pays on a CPU where each output of a layer is a sum of many products, as the rest of the
# network gains nothing: with 256 to 2000 in most of the work, a forward and backward pass took 0.3
# to 0.85 of its time in float32, in small networks with 144 to 216 0.7 to 0.85, with 40 to 120 1.2.
_MANY_PRODUCTS = 256
_MANY_PRODUCTS_WORK = 0.5

# Compiling takes tens of seconds for each size of a pass. An H100 makes so many multiplications in
# four minutes, and half of them are saved.
_COMPILED_WORK = 3e16


class _Allowed(NamedTuple):
    """Errors of a candidate that count as rounding.

    Attributes:
        logits: largest difference, relative to the largest logit.
        cosine: least, of the gradients.
        change: difference of the logits' changes from clean to perturbed, relative to these.
    """

    logits: float
    cosine: float
    change: float


# In float32 rounding changes logits by about 1e-6 of their size and, through ReLUs at zero,
# gradients by about a hundredth; other errors change them by more. bfloat16 has 8 bits, TF32 11: in
# bfloat16 the logits of six networks were off by 0.002 to 0.018, the cosine was at least 0.975, and
# changes within the usual radius were off by 0.01 to 0.04, within a sixteenth of it by 0.2 to 0.3.
# Where they were off by 0.08, a search missed breaks of 3 % of the images.
_ALLOWED: dict[Precision, _Allowed] = {
    "fp32": _Allowed(1e-4, 0.999, 1e-2),
    "tf32": _Allowed(0.01, 0.95, 0.05),
    "bf16": _Allowed(0.05, 0.9, 0.05),
}


@dataclass(frozen=True)
class Accelerated:
    """A faster form of a network.

    Attributes:
        forward: images ``(n, c, h, w)`` to logits ``(n, k)``, equal to the network's up to
            rounding.
        precision: what it has to be run in: ``Runner(forward, device, precision=precision)``.
        used: the transformations that are used.
        notes: the transformations that were rejected, and why.
        folded: the network with batch norms folded, where that is used.
        compiled: whether compiling it pays for the planned passes.
    """

    forward: Forward
    precision: Precision = "fp32"
    used: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    folded: Folded | None = None
    compiled: bool = False


def accelerate(
    model: nn.Module,
    shape: Sequence[int],
    precision: Asked = "auto",
    *,
    examples: Tensor | None = None,
    threat: ThreatModel | None = None,
    passes: float = 0,
    fold: bool = True,
) -> Accelerated:
    """The network with batch norms folded, in channels-last order and a fast arithmetic.

    The memory order is changed where convolutions of many channels do most of the work; elsewhere
    it is slower. In ``bf16`` the weights of a copy and all between its layers are in bfloat16; the
    input normalisation and the logits stay in float32.

    A form is used if logits and input gradients agree with the network's on noise, on examples and
    on these perturbed along the sign of a gradient, and if the perturbations change the logits as
    they do the network's: near 1, bfloat16's numbers are 1/256 apart, and a small radius may vanish
    in it. It is rejected with a note otherwise. The network itself is left unchanged; one that
    cannot be run on noise is returned as the original network.

    Args:
        model: images to logits.
        shape: of one image, ``(c, h, w)``.
        precision: of searches, not of verdicts: ``bf16``, ``tf32`` or ``fp32``, and the next one
            where it is rejected; ``auto`` for the fastest one of the device, on a CPU ``bf16`` only
            where most multiplications belong to long sums.
        examples: audited images ``(n, c, h, w)``, of which the first few are used.
        threat: perturbations that matter; they are compared if there are examples.
        passes: of images, at most, a backward pass counted as two. On a GPU the network is
            compiled if they take 3e16 multiplications or more.
        fold: fold batch norms; not where the form is to be given other norms.

    Returns:
        The form to run, with the transformations used.
    """
    try:
        found, products = _accelerated(model, shape, precision, examples, threat, fold)
    except BaseException as error:
        if not (is_foreign(error) or isinstance(error, NotMeasuredError)):
            raise
        return Accelerated(
            model, notes=(f"the original network is run: on noise it raised {error_line(error)}",)
        )
    pays = device_of(model).type == "cuda" and passes * products >= _COMPILED_WORK
    return replace(found, compiled=pays)


def _accelerated(
    model: nn.Module,
    shape: Sequence[int],
    asked: Asked,
    examples: Tensor | None,
    threat: ThreatModel | None,
    fold: bool,
) -> tuple[Accelerated, int]:
    """The form, and the network's multiplications per image."""
    if isinstance(model, Voted):  # another form would draw other noise
        return Accelerated(model), 0
    notes: list[str] = []
    used: list[str] = []
    device = device_of(model)
    with frozen(model):
        noise = uniform_rows(shape, torch.arange(_NOISE), 0, "acceleration", device=device)
        trial = _Trial(model, noise, examples, threat)
        found: nn.Module = model

        def offer(
            name: str, refusal: str, make: Callable[[], nn.Module], precision: Precision = "fp32"
        ) -> bool:
            """Replace the network by the candidate if they agree."""
            nonlocal found
            problem, candidate = "the network cannot be copied", found
            with suppress(RuntimeError, TypeError):
                candidate = make()
                problem = ""
            problem = problem or trial.problem(candidate, precision)
            if problem:
                notes.append(f"{refusal}: {problem}")
            else:
                found = candidate
                used.append(name)
            return not problem

        folded = fold_batch_norm(model, noise[:2]) if fold else None
        if folded:
            network = folded.network
            if not offer("batch norm folded", "batch norm is not folded", lambda: network):
                folded = None
        few_channels, many_products, products = _work(model, noise[:1])
        plain, last = found, False
        if few_channels < _FEW_CHANNELS_WORK:
            last = offer(CHANNELS_LAST, "channels are not last", lambda: Form(plain, last=True))
        for precision in candidates(asked, device):
            if precision == "fp32" or (
                precision == "bf16"
                and (asked, device.type) == ("auto", "cpu")
                and many_products < _MANY_PRODUCTS_WORK
            ):
                continue
            rounded = partial(Form, plain, last=last, rounded=True)
            make = rounded if precision == "bf16" else lambda: found
            if offer(precision, f"{precision} is not used", make, precision):
                break
        else:
            precision = "fp32"
    return Accelerated(found, precision, tuple(used), tuple(notes), folded), products


def _work(model: nn.Module, image: Tensor) -> tuple[float, float, int]:
    """Which part of the multiplications few input channels have, which part long sums, and all.

    The first is 1 in a network without convolutions.
    """
    kinds = nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d
    layers = {name: m for name, m in model.named_modules() if isinstance(m, kinds)}
    with observed(layers) as calls, torch.no_grad():
        model(image)
    few = convolved = long = total = 0
    for call in calls:
        layer, output, weight = call.module, call.output, call.module.weight
        if not isinstance(output, Tensor) or not isinstance(weight, Tensor):
            continue
        products = weight[0].numel()
        work = output.numel() * products
        total += work
        long += work * (products >= _MANY_PRODUCTS)
        if isinstance(layer, nn.Conv2d):
            convolved += work
            few += work * (layer.in_channels < _FEW_CHANNELS)
    return few / convolved if convolved else 1.0, long / max(1, total), total


class Form(nn.Module):
    """A frozen copy of a network, for images in any memory order; its logits are in their type.

    Args:
        last: in channels-last order.
        rounded: in bfloat16.
    """

    def __init__(self, network: nn.Module, *, last: bool, rounded: bool = False) -> None:
        super().__init__()
        own = copy.deepcopy(network).eval().requires_grad_(False)
        self.network, self._last = own, last
        if rounded:
            inner = as_written(own.network if isinstance(own, StraightThrough) else own)
            inner.to(torch.bfloat16)
            inner.register_forward_pre_hook(_round_images)
        if last:
            own.to(memory_format=torch.channels_last)

    def forward(self, x: Tensor) -> Tensor:
        if self._last:
            x = x.contiguous(memory_format=torch.channels_last)
        logits: Tensor = self.network(x)
        return logits.to(x.dtype)


def _round_images(_: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
    images, *others = args
    return (images.to(torch.bfloat16), *others)


class _Trial:
    """Holds forms of a network against the network.

    Args:
        noise: images on which it is run first; what it raises on them is raised here.
        examples, threat: as in :func:`accelerate`.
    """

    def __init__(
        self,
        model: nn.Module,
        noise: Tensor,
        examples: Tensor | None,
        threat: ThreatModel | None,
    ) -> None:
        own = mixture_gradient(model, noise)
        parts = [noise]
        if examples is not None:
            parts.append(clean := rows_of(examples, slice(0, _EXAMPLES), noise.device))
            own = mixture_gradient(model, torch.cat(parts))
            if threat is not None:
                slopes = torch.zeros_like(clean) if own[1] is None else own[1][len(noise) :]
                slopes = slopes.nan_to_num(0.0, 0.0, 0.0)
                flat = ~slopes.flatten(1).any(1)
                slopes[flat] = noise[: len(clean)][flat] - 0.5
                parts.append(Ball(clean, threat).step(clean, slopes, threat.eps))
                own = mixture_gradient(model, torch.cat(parts))
        self._own, self._points = own, torch.cat(parts)
        self._sizes = [len(part) for part in parts]

    def problem(self, candidate: Forward, precision: Precision) -> str:
        """How the candidate differs from the network; empty if it agrees."""
        try:
            with arithmetic(precision):
                other = mixture_gradient(candidate, self._points)
        except BaseException as error:
            if not recurs(error):
                raise
            return f"the network then raises {type(error).__name__}"
        return difference(self._own, other, precision, self._sizes)


def difference(
    own: _Sensitivity,
    other: _Sensitivity,
    precision: Precision,
    sizes: Sequence[int] | None = None,
) -> str:
    """How a form of a network differs from the network by more than rounding; empty if it agrees.

    Args:
        own, other: logits ``(n, k)``, and a gradient in the images where they have one.
        sizes: numbers of images, in order, that are compared by themselves: noise, clean ones, and
            the clean ones perturbed.
    """
    allowed = _ALLOWED[precision]
    (logits, slopes), (other_logits, other_slopes) = own, other
    if other_logits.shape != logits.shape:
        return "its output has another shape"

    def apart(a: Tensor, b: Tensor) -> list[tuple[Tensor, Tensor]]:
        parts = [torch.split(rows, list(sizes or [len(rows)])) for rows in (a, b)]
        return list(zip(*parts, strict=True))

    pairs = apart(logits, other_logits)
    off = max(_largest(b - a) / max(_largest(a), 1e-12) for a, b in pairs)
    if not off <= allowed.logits:
        return f"its logits differ by {off:.1g} of their size"
    if len(pairs) > 2:
        _, clean, perturbed = pairs
        moved, other_moved = (b - a for a, b in zip(clean, perturbed, strict=True))
        off = float((other_moved - moved).norm() / moved.norm().clamp_min(1e-12))
        if not off <= allowed.change:
            return f"what perturbations change in its logits differs by {off:.1g} of its size"
    if slopes is None or other_slopes is None:
        return "" if slopes is other_slopes else "it has no gradients"
    for a, b in apart(slopes, other_slopes):
        cosine = torch.cosine_similarity(a.flatten(), b.flatten(), dim=0, eps=0)
        if (a.any() or b.any()) and not cosine >= allowed.cosine:
            return f"the cosine of its gradients is {cosine:.3f}"
    return ""


def _largest(values: Tensor) -> float:
    return float(values.abs().max())
