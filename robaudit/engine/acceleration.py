"""Faster forms of a network, each compared with the original before it is used."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor, nn

from robaudit.engine.calls import observed
from robaudit.engine.device import device_of
from robaudit.engine.edges import mixture_gradient
from robaudit.engine.folding import Folded, fold_batch_norm
from robaudit.engine.freezing import frozen
from robaudit.engine.logits import Forward
from robaudit.engine.precision import Asked, Precision, arithmetic, candidates
from robaudit.engine.raised import is_foreign
from robaudit.engine.seeding import uniform_rows
from robaudit.engine.voting import Voted
from robaudit.errors import NotMeasuredError, error_line

_Sensitivity = tuple[Tensor, Tensor | None]
CHANNELS_LAST = "channels last"

# Number of noise images on which a candidate is compared. They are the same for every data set, so
# that the form in which a network runs depends on the network alone.
_PROBES = 16

# Channels-last order slows down convolutions of few input channels, and is used where these do
# little of the work. On a CPU, a forward and backward pass of six networks in which they do 1 to 13
# % of the multiplications took 0.62 to 0.90 of its time, of two with 27 and 37 % 1.18 and 0.96 (and
# the forward pass 1.33 and 1.13).
_FEW_CHANNELS = 8
_FEW_CHANNELS_WORK = 0.2

# Largest error of a candidate's logits, relative to the largest logit, and least cosine of its
# gradients. In float32 rounding changes logits by about 1e-6 of their size and, through ReLUs at
# zero, gradients by about a hundredth; other errors change them by more.
_ALLOWED: dict[Precision, tuple[float, float]] = {
    "fp32": (1e-4, 0.999),
    "tf32": (0.01, 0.95),
    "bf16": (0.05, 0.9),
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
    """

    forward: Forward
    precision: Precision = "fp32"
    used: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    folded: Folded | None = None


def accelerate(
    model: nn.Module,
    shape: Sequence[int],
    precision: Asked = "auto",
    *,
    examples: Tensor | None = None,
) -> Accelerated:
    """The network with batch norms folded, in channels-last order and a fast arithmetic.

    The memory order is changed where convolutions of many channels do most of the work; elsewhere
    it is slower.

    A transformation is used if logits and input gradients on noise agree with the network's, and
    rejected with a note otherwise. The network itself is left unchanged; one that cannot be run on
    noise is returned as the original network.

    Args:
        model: images to logits.
        shape: of one image, ``(c, h, w)``.
        precision: of searches, not of verdicts: ``bf16``, ``tf32`` or ``fp32``, and the next one
            where the logits in it differ too much; ``auto`` for the fastest one of the device.
        examples: a few audited images ``(n, c, h, w)``.

    Returns:
        The form to run, with the transformations used.
    """
    try:
        return _accelerated(model, shape, candidates(precision, device_of(model)))
    except BaseException as error:
        if not (is_foreign(error) or isinstance(error, NotMeasuredError)):
            raise
        return Accelerated(
            model, notes=(f"the original network is run: on noise it raised {error_line(error)}",)
        )


def _accelerated(
    model: nn.Module, shape: Sequence[int], precisions: Sequence[Precision]
) -> Accelerated:
    if isinstance(model, Voted):  # another form would draw other noise
        return Accelerated(model)
    notes: list[str] = []
    with frozen(model):
        noise = uniform_rows(shape, torch.arange(_PROBES), 0, "acceleration").to(device_of(model))
        found: nn.Module = model
        used: list[str] = []
        own = cache(lambda: mixture_gradient(model, noise))

        def offer(
            name: str, refusal: str, candidate: nn.Module, precision: Precision = "fp32"
        ) -> bool:
            """Replace the network by the candidate if they agree."""
            nonlocal found
            problem = _differs(own(), candidate, noise, precision)
            if problem:
                notes.append(f"{refusal}: {problem}")
            else:
                found = candidate
                used.append(name)
            return not problem

        folded = fold_batch_norm(model, noise[:2])
        if folded and not offer("batch norm folded", "batch norm is not folded", folded.network):
            folded = None
        if _mostly_many_channels(model, noise[:1]):
            try:
                offer(CHANNELS_LAST, "channels are not last", ImagesLast(channels_last(found)))
            except (RuntimeError, TypeError):
                notes.append("channels are not last: the network cannot be copied")
        for precision in precisions:
            if precision == "fp32":
                break
            faster = _Rounded(found) if precision == "bf16" else found
            with arithmetic(precision):
                if offer(precision, f"{precision} is not used", faster, precision):
                    break
    return Accelerated(found, precision, tuple(used), tuple(notes), folded)


def _mostly_many_channels(model: nn.Module, image: Tensor) -> bool:
    """Whether convolutions of many input channels do most multiplications of all convolutions."""
    layers = {name: m for name, m in model.named_modules() if isinstance(m, nn.Conv2d)}
    with observed(layers) as calls, torch.no_grad():
        model(image)
    few = total = 0
    for name, _, _, output in calls:
        if isinstance(output, Tensor):
            work = output.numel() * layers[name].weight[0].numel()
            total += work
            few += work * (layers[name].in_channels < _FEW_CHANNELS)
    return few < _FEW_CHANNELS_WORK * total


def channels_last(network: nn.Module) -> nn.Module:
    """A frozen copy with its weights in channels-last order; :class:`ImagesLast` runs it."""
    own = copy.deepcopy(network).eval().requires_grad_(False)
    return own.to(memory_format=torch.channels_last)


class ImagesLast(nn.Module):
    """A network in channels-last order, for images in any memory order."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.network(x.contiguous(memory_format=torch.channels_last))
        return logits


class _Rounded(nn.Module):
    """A network whose convolutions and matrix products run in bfloat16."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, dtype=torch.bfloat16):
            logits: Tensor = self.network(x)
        return logits.float()


def _differs(own: _Sensitivity, candidate: Forward, images: Tensor, precision: Precision) -> str:
    """How the candidate differs from the network; empty if it agrees."""
    most, least = _ALLOWED[precision]
    logits, gradient = own
    try:
        others, other_gradient = mixture_gradient(candidate, images)
    except BaseException as error:
        if not (is_foreign(error) or isinstance(error, NotMeasuredError)):
            raise
        return f"the network then raises {type(error).__name__}"
    if others.shape != logits.shape:
        return "its output then has another shape"
    off = float((others - logits).abs().max() / logits.abs().max().clamp_min(1e-12))
    if not off <= most:
        return f"its logits differ by {off:.1g} of their size"
    if gradient is None or other_gradient is None:
        return "" if gradient is other_gradient else "it has no gradients"
    cosine = torch.cosine_similarity(gradient.flatten(), other_gradient.flatten(), dim=0, eps=0)
    if not gradient.any() and not other_gradient.any():
        return ""
    return "" if cosine >= least else f"the cosine of its gradients is {float(cosine):.3f}"
