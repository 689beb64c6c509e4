"""The Weight-Curvature Index."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from robaudit.brief import brief
from robaudit.curvature.derivatives import NoSecondDerivativeError
from robaudit.curvature.losses import standard_error
from robaudit.curvature.targets import Layers
from robaudit.curvature.traces import (
    LayerTrace,
    LayerTraces,
    classes_of,
    gauss_newton_estimator,
    layer_traces,
)
from robaudit.engine import Arithmetic
from robaudit.engine.arguments import checked_features
from robaudit.notebook import html
from robaudit.types import Estimator, Progress


@dataclass(frozen=True)
class LayerContribution(LayerTrace):
    """One layer's part of the index, with its trace.

    Attributes:
        contribution: ``||W_k||_F sqrt(Tr(H_k))``.
        share: of the contribution in the index, as a fraction.
    """

    contribution: float
    share: float


@dataclass(frozen=True)
class WeightCurvature:
    """The Weight-Curvature Index with its standard error.

    Attributes:
        value: ``sum_k ||W_k||_F sqrt(Tr(H_k))``.
        bound: the Cauchy-Schwarz bound ``sqrt(sum ||W_k||_F^2) sqrt(sum Tr(H_k))`` (Eq. 6).
        standard_error: over examples, by the delta method; it counts the correlation of the
            layers' errors, and rounding.
        bias: of the square root, ``-sum_k contribution_k r_k^2 / 8`` with ``r_k`` the relative
            standard error of layer k's trace; not subtracted from ``value``.
        layers: the contribution of each layer, in the network's order.
        traces: the traces that it was computed from.
        note: why Gauss-Newton traces were used instead of the Hessian's, if so.
        rounding: the part of ``standard_error`` that is by rounding; zero in float32.
    """

    value: float
    bound: float
    standard_error: float
    bias: float
    layers: tuple[LayerContribution, ...]
    traces: LayerTraces
    note: str | None = None
    rounding: float = 0.0

    __repr__ = brief
    _repr_html_ = html


@checked_features
def wci(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    estimator: Estimator = "auto",
    layers: Layers = None,
    probes: int = 1,
    seed: int = 0,
    index: Tensor | None = None,
    memory: int | None = None,
    precision: Arithmetic = "fp32",
    progress: Progress | None = None,
) -> WeightCurvature:
    """The Weight-Curvature Index ``sum_k sqrt(||W_k||_F^2 Tr(H_k))``.

    The sum runs over the weights of convolutions, linear layers and attention projections, or over
    the chosen ones. It is invariant under ``W_k -> a W_k, W_{k+1} -> W_{k+1} / a`` in ReLU networks
    (Remark 2.7).

    The Hessian's trace of a smooth network may be negative, and has no square root then; the root
    of an estimate within two standard errors of zero is not meaningful. Where either holds in a
    layer, Gauss-Newton traces replace the Hessian's in all layers, and ``note`` says so; by default
    also where a module has no second derivative, or a wrong one.

    Args:
        model: images to logits ``(n, k)``; it is left unchanged.
        x: adversarial images ``(n, c, h, w)``, held fixed (the paper: PGD-10).
        y: labels ``(n,)``.
        estimator, layers, probes, seed, index, memory, precision, progress: as in
            :func:`robaudit.curvature.layer_traces`; all chosen tensors enter the sum.

    Returns:
        The index with standard error, bound and contributions of the layers.

    Raises:
        UsageError, NotMeasuredError: as in :func:`robaudit.curvature.layer_traces`.

    Source: Xu & Zhang, "Understanding adversarially robust generalization via Weight-Curvature
    Index", arXiv 2410.07719v1, Definition 2.6.

    >>> net = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    >>> found = wci(net, torch.rand(5, 1, 2, 2), torch.zeros(5).long())
    >>> found.value <= found.bound
    True
    """

    def measured(which: Estimator) -> LayerTraces:
        return layer_traces(
            model,
            x,
            y,
            estimator=which,
            layers=layers,
            probes=probes,
            seed=seed,
            index=index,
            memory=memory,
            precision=precision,
            progress=progress,
        )

    note = None
    try:
        traces = measured(estimator)
    except NoSecondDerivativeError as error:
        if estimator != "auto":
            raise
        note = f"{error.message}: WCI uses the Gauss-Newton traces"
        traces = measured(gauss_newton_estimator(classes_of(model, x)))
    unclear = [
        f"{layer.name} {layer.trace:.3g} +- {layer.standard_error:.2g}"
        for layer in traces.layers.values()
        if traces.estimator == "hessian"
        and layer.frobenius * layer.trace != 0
        and not layer.trace > 2 * layer.standard_error
    ]
    if unclear:
        note = (
            f"the Hessian's trace is not clearly positive in {len(unclear)} of "
            f"{len(traces.layers)} layers ({', '.join(unclear[:2])}): WCI uses the "
            "Gauss-Newton traces"
        )
        traces = measured(gauss_newton_estimator(traces.classes))
    return from_traces(traces, note)


def from_traces(traces: LayerTraces, note: str | None = None) -> WeightCurvature:
    """The index from given traces, which must be non-negative."""
    rows = list(traces.layers.values())
    contributions = [row.frobenius * math.sqrt(row.trace) for row in rows]
    value = math.fsum(contributions)
    # d/dt ||W|| sqrt(t) = contribution / (2 t)
    slopes = torch.tensor(
        [
            c / (2 * row.trace) if row.trace > 0 else 0.0
            for c, row in zip(contributions, rows, strict=True)
        ],
        dtype=torch.float64,
    )
    rounding = 0.0 if traces.rounded is None else traces.rounded.error(slopes)
    return WeightCurvature(
        value=value,
        bound=math.sqrt(sum(row.frobenius**2 for row in rows) * sum(row.trace for row in rows)),
        standard_error=math.hypot(standard_error(traces.per_example @ slopes), rounding),
        bias=-math.fsum(
            c * (row.standard_error / row.trace) ** 2 / 8
            for c, row in zip(contributions, rows, strict=True)
            if row.trace > 0
        ),
        layers=tuple(
            LayerContribution(**vars(row), contribution=c, share=c / value if value else 0.0)
            for c, row in zip(contributions, rows, strict=True)
        ),
        traces=traces,
        note=note,
        rounding=rounding,
    )
