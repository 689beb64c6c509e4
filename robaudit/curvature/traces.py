"""Per-layer Hessian traces of the loss, with error bars."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from robaudit.curvature.chunks import chunks, footprint
from robaudit.curvature.exact import Factor, gauss_newton_traces
from robaudit.curvature.layers import Layer, find_layers, measurable, uncovered_weights
from robaudit.curvature.linearity import bent_layers
from robaudit.curvature.obstacles import naming_obstacles
from robaudit.curvature.output_probes import hessian_trace_samples
from robaudit.curvature.selection import chosen_parameters
from robaudit.curvature.softmax import logit_curvature_factor, mixed_columns
from robaudit.engine import device_of, frozen
from robaudit.errors import NotMeasuredError, UsageError
from robaudit.types import Progress

Used = Literal["exact", "gauss-newton", "hessian"]
Estimator = Literal["auto"] | Used
Quantity = Literal["hessian", "gauss-newton"]

# Above it, a backward pass per class costs more than the examples' own spread is worth.
_EXACT_CLASSES = 128


@dataclass(frozen=True)
class LayerTrace:
    """One layer's trace and weight norm.

    Attributes:
        frobenius: ``||W_k||_F``.
        trace: ``Tr(H_k)``, the mean over examples.
        standard_error: over examples (and probes, where the estimator draws any).
    """

    name: str
    frobenius: float
    trace: float
    standard_error: float


@dataclass(frozen=True)
class LayerTraces:
    """Traces of all layers, and what they are traces of.

    Attributes:
        layers: name to :class:`LayerTrace`, in the network's order.
        quantity: ``hessian``, or ``gauss-newton`` where the two differ and the latter was computed.
        estimator: ``exact`` (no estimator noise), ``gauss-newton`` (mixed-class probes) or
            ``hessian`` (probes in layer-output space).
        per_example: ``(n, layers)`` float64 on the CPU.
        uncovered: parameters with two dimensions or more that are in no layer.
        bent: why Hessian and Gauss-Newton matrix differ on this network; empty if they do not.
        classes: how many logits the network has.
    """

    layers: dict[str, LayerTrace]
    quantity: Quantity
    estimator: Used
    per_example: Tensor
    uncovered: tuple[str, ...]
    bent: tuple[str, ...]
    classes: int

    @property
    def total(self) -> float:
        """``sum_k Tr(H_k)``."""
        return sum(layer.trace for layer in self.layers.values())

    @property
    def total_standard_error(self) -> float:
        return _standard_error(self.per_example.sum(1))


def layer_traces(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    estimator: Estimator = "auto",
    layers: Sequence[str] | None = None,
    probes: int = 1,
    seed: int = 0,
    index: Tensor | None = None,
    memory: int | None = None,
    progress: Progress | None = None,
) -> LayerTraces:
    """``Tr(H_k)`` for every convolution and linear weight, ``H_k`` the Hessian of the mean
    cross-entropy ``L(w; x, y)`` in that weight alone.

    ``exact`` computes the Gauss-Newton trace without estimator noise; it is the Hessian's wherever
    the network is piecewise linear in each layer's weights (ReLU-like activations, eval-mode batch
    norm, pooling, residual sums), which is checked on the data. ``gauss-newton`` estimates the same
    trace without bias from one backward pass per probe in place of one per class. ``hessian`` draws
    unbiased probes of the true trace for smooth networks; it may be negative and is reported as it
    is. ``auto`` takes a Gauss-Newton estimator where that is the Hessian (``exact`` up to
    128 classes, ``gauss-newton`` above), else ``hessian``.

    Args:
        x: images ``(n, c, h, w)``, usually adversarial ones, held fixed.
        y: labels ``(n,)``.
        layers: names of the modules or weights to measure; ``None`` for all.
        probes: draws per example for ``gauss-newton`` and ``hessian``.
        index: ``(n,)`` the examples' places in their data set, which seed their probes.
        memory: bytes, by estimate, that may be used beside the network itself; sets how many images
            go through at once and changes no result beyond rounding.

    Raises:
        NotMeasuredError: no layers, a single class, values that are not finite, or a network whose
            second derivative cannot be had (``exact`` and ``gauss-newton`` do without).
        UsageError: an unknown layer, one image that needs more than ``memory``, or no probes.

    >>> net = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    >>> found = layer_traces(net, torch.rand(5, 1, 2, 2), torch.zeros(5).long())
    >>> found.quantity, list(found.layers)
    ('hessian', ['1', '3'])
    """
    if probes < 1:
        raise UsageError(f"probes must be at least 1, not {probes}")
    index = torch.arange(len(x)) if index is None else index
    with frozen(model):
        device = device_of(model)
        first = x[:1].to(device)
        everything = measurable(model, find_layers(model), first)
        measured = _selected(model, everything, layers)
        classes = _classes(model, first)
        bent = _bent(model, measured, x[:8].to(device), y[:8].to(device), estimator, seed)
        chosen: Used = estimator if estimator != "auto" else "hessian"
        if estimator == "auto" and not bent:
            chosen = gauss_newton_estimator(classes)
        foot = footprint(model, measured, first)
        size = chunks(foot, _columns(chosen, classes, probes), device, memory)
        parts = []
        for start in range(0, len(x), size.images):
            chunk = slice(start, start + size.images)
            images, places = x[chunk].to(device), index[chunk]
            if chosen == "hessian":
                labels = y[chunk].to(device)
                samples = [
                    hessian_trace_samples(model, measured, images, labels, places, probe, seed)
                    for probe in range(probes)
                ]
                parts.append(torch.stack(samples).mean(0).cpu())
            else:
                factor = _factor(chosen, places, probes, seed)
                found = gauss_newton_traces(model, measured, images, factor, size.columns)
                parts.append(found.cpu())
            if progress is not None:
                progress(min(start + size.images, len(x)), len(x))
    per_example = torch.cat(parts)
    if not bool(per_example.isfinite().all()):
        broken = int((~per_example.isfinite().all(1)).sum())
        raise NotMeasuredError(
            f"the layer traces are not finite on {broken} of {len(x)} images",
            "The logits or their derivatives overflow there; look at the loss on these images.",
        )
    return LayerTraces(
        layers={
            layer.name: _layer_trace(layer, column)
            for layer, column in zip(measured, per_example.T, strict=True)
        },
        quantity="gauss-newton" if chosen != "hessian" and bent else "hessian",
        estimator=chosen,
        per_example=per_example,
        uncovered=tuple(uncovered_weights(model, everything)),
        bent=bent,
        classes=classes,
    )


def gauss_newton_estimator(classes: int) -> Literal["exact", "gauss-newton"]:
    """The cheaper way to the Gauss-Newton trace for so many classes."""
    return "exact" if classes <= _EXACT_CLASSES else "gauss-newton"


def _selected(model: nn.Module, found: list[Layer], names: Sequence[str] | None) -> list[Layer]:
    if names is None:
        return found
    wanted = {id(parameter): name for name, parameter in chosen_parameters(model, names).items()}
    held = {id(layer.weight) for layer in found}
    for at, name in wanted.items():
        if at not in held:
            raise NotMeasuredError(
                f"{name} is no weight of a convolution or linear layer that can be measured"
            )
    return [layer for layer in found if id(layer.weight) in wanted]


def _bent(
    model: nn.Module, layers: list[Layer], x: Tensor, y: Tensor, estimator: Estimator, seed: int
) -> tuple[str, ...]:
    try:
        with naming_obstacles(model, x, y):
            return tuple(bent_layers(model, layers, x, seed))
    except NotMeasuredError as error:
        if estimator in ("auto", "hessian"):
            raise NotMeasuredError(
                error.message, "The estimator exact measures the Gauss-Newton traces without it."
            ) from error
        return (error.message,)


def _classes(model: nn.Module, image: Tensor) -> int:
    with torch.no_grad():
        logits = model(image)
    if logits.dim() != 2 or logits.shape[1] < 2:
        raise NotMeasuredError(
            f"the network's output has shape {tuple(logits.shape)} for one image; cross-entropy "
            "has curvature from two classes on"
        )
    return int(logits.shape[1])


def _columns(chosen: Used, classes: int, probes: int) -> int:
    return {"exact": classes - 1, "gauss-newton": probes, "hessian": 1}[chosen]


def _factor(chosen: Used, index: Tensor, probes: int, seed: int) -> Factor:
    if chosen == "exact":
        return logit_curvature_factor
    return lambda logits: mixed_columns(logits, index, probes, seed)


def _layer_trace(layer: Layer, column: Tensor) -> LayerTrace:
    return LayerTrace(layer.name, layer.frobenius, float(column.mean()), _standard_error(column))


def _standard_error(values: Tensor) -> float:
    n = len(values)
    return float(values.std() / n**0.5) if n > 1 else float("nan")
