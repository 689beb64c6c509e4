"""Per-layer Hessian traces of the loss, with error bars."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from robaudit.curvature.exact import gauss_newton_traces
from robaudit.curvature.layers import Layer, find_layers, uncovered_weights
from robaudit.curvature.linearity import bent_layers
from robaudit.curvature.output_probes import hessian_trace_samples
from robaudit.engine import device_of, frozen
from robaudit.errors import NotMeasuredError
from robaudit.types import Progress

Estimator = Literal["auto", "exact", "hessian"]
Quantity = Literal["hessian", "gauss-newton"]

# Images per pass: small chunks stay in the CPU's cache; a GPU wants more at once.
_CHUNK = {"cpu": 32, "cuda": 256}


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
        estimator: ``exact`` (no estimator noise) or ``hessian`` (probes in layer-output space).
        per_example: ``(n, layers)`` float64 on the CPU.
        uncovered: parameters with two dimensions or more that are in no layer.
        bent: why Hessian and Gauss-Newton matrix differ on this network; empty if they do not.
    """

    layers: dict[str, LayerTrace]
    quantity: Quantity
    estimator: Literal["exact", "hessian"]
    per_example: Tensor
    uncovered: tuple[str, ...]
    bent: tuple[str, ...]

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
    probes: int = 1,
    seed: int = 0,
    index: Tensor | None = None,
    progress: Progress | None = None,
) -> LayerTraces:
    """``Tr(H_k)`` for every convolution and linear weight, ``H_k`` the Hessian of the mean
    cross-entropy ``L(w; x, y)`` in that weight alone.

    ``exact`` computes the Gauss-Newton trace without estimator noise; it is the Hessian's wherever
    the network is piecewise linear in each layer's weights (ReLU-like activations, eval-mode batch
    norm, pooling, residual sums), which is checked on the data. ``hessian`` draws unbiased probes
    of the true trace for smooth networks; it may be negative and is reported as it is. ``auto``
    takes ``exact`` where that is the Hessian, else ``hessian``.

    Args:
        x: images ``(n, c, h, w)``, usually adversarial ones, held fixed.
        y: labels ``(n,)``.
        probes: draws per example for ``hessian``.
        index: ``(n,)`` the examples' places in their data set, which seed their probes.

    Raises:
        NotMeasuredError: no layers, or values that are not finite.

    >>> net = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    >>> found = layer_traces(net, torch.rand(5, 1, 2, 2), torch.zeros(5).long())
    >>> found.quantity, list(found.layers)
    ('hessian', ['1', '3'])
    """
    index = torch.arange(len(x)) if index is None else index
    with frozen(model):
        device = device_of(model)
        layers = find_layers(model)
        bent = tuple(bent_layers(model, layers, x[:8].to(device), seed))
        chosen: Literal["exact", "hessian"]
        chosen = ("hessian" if bent else "exact") if estimator == "auto" else estimator
        size = _CHUNK.get(device.type, 64)
        parts = []
        for start in range(0, len(x), size):
            chunk = slice(start, start + size)
            images = x[chunk].to(device)
            if chosen == "exact":
                parts.append(gauss_newton_traces(model, layers, images).cpu())
            else:
                labels = y[chunk].to(device)
                samples = [
                    hessian_trace_samples(model, layers, images, labels, index[chunk], probe, seed)
                    for probe in range(probes)
                ]
                parts.append(torch.stack(samples).mean(0).cpu())
            if progress is not None:
                progress(min(start + size, len(x)), len(x))
    per_example = torch.cat(parts)
    if not bool(per_example.isfinite().all()):
        raise NotMeasuredError("the layer traces are not finite on some images")
    return LayerTraces(
        layers={
            layer.name: _layer_trace(layer, column)
            for layer, column in zip(layers, per_example.T, strict=True)
        },
        quantity="gauss-newton" if chosen == "exact" and bent else "hessian",
        estimator=chosen,
        per_example=per_example,
        uncovered=tuple(uncovered_weights(model, layers)),
        bent=bent,
    )


def _layer_trace(layer: Layer, column: Tensor) -> LayerTrace:
    return LayerTrace(layer.name, layer.frobenius, float(column.mean()), _standard_error(column))


def _standard_error(values: Tensor) -> float:
    n = len(values)
    return float(values.std() / n**0.5) if n > 1 else float("nan")
