"""Per-layer Hessian traces of the loss, with error bars."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from robaudit.brief import brief
from robaudit.curvature.chunk_sizes import chunks, footprint
from robaudit.curvature.derivatives import NoSecondDerivativeError, check_derivatives
from robaudit.curvature.double_backward import checked_double_backward
from robaudit.curvature.linearity import bent_layers, smooth_modules
from robaudit.curvature.losses import standard_error
from robaudit.curvature.per_example import plain_attention
from robaudit.curvature.rounding_trial import RoundingTrial, TraceRounding
from robaudit.curvature.targets import Layers, Targets, find_targets
from robaudit.curvature.trace_estimators import (
    check_memory,
    gauss_newton_rows,
    hessian_rows,
    logit_factors,
)
from robaudit.engine import (
    Arithmetic,
    device_of,
    devices_of,
    effective,
    effective_notes,
    frozen,
    generator,
    idle_note,
    in_float64,
)
from robaudit.engine.arguments import checked_features
from robaudit.engine.precision import Asked, Precision, candidates
from robaudit.engine.several import over_devices, replicas
from robaudit.errors import NotMeasuredError
from robaudit.types import Estimator, Progress

Used = Literal["exact", "gauss-newton", "hessian"]

# Above it, one backward pass per class costs more than the spread of the examples justifies.
_EXACT_CLASSES = 128
# Images on which a network is first tested for being piecewise linear.
_ASKED = 8
_NO_TF32 = "fp32, not tf32: devices that share the images would have to change between them at once"


@dataclass(frozen=True)
class LayerTrace:
    """Trace and weight norm of one layer.

    Attributes:
        name: of the module whose weight it is, or of the parameter.
        frobenius: ``||W_k||_F``.
        trace: ``Tr(H_k)``, the mean over examples.
        standard_error: of ``trace``, over examples (and probes, where the estimator draws any), and
            by rounding.
        rounding: the error by rounding of backward passes; zero in float32.
    """

    name: str
    frobenius: float
    trace: float
    standard_error: float
    rounding: float


@dataclass(frozen=True)
class LayerTraces:
    """Traces of all layers, and the matrix that they are traces of.

    Attributes:
        layers: name to :class:`LayerTrace`, in the network's order.
        quantity: ``hessian``, or ``gauss-newton`` where the two differ and the latter was computed.
        estimator: ``exact`` (no estimator noise), ``gauss-newton`` (mixed-class probes) or
            ``hessian`` (probes in layer-output space).
        per_example: ``(n, layers)`` float64 on the CPU.
        uncovered: parameters with two dimensions or more that the default choice of layers leaves
            out (positional parameters, class tokens); empty where layers were chosen.
        bent: why Hessian and Gauss-Newton matrix differ on this network; empty if they do not.
        classes: number of logits.
        precision: ``float64`` if it was requested; otherwise the precision of the backward passes:
            ``tf32`` or ``bf16`` on all but the first images where these passed the comparison.
        precision_note: why it is not a faster one that was asked for.
        rounded: what rounding changed on the first images; ``None`` where nothing is rounded.
        idle: chosen parameters that no forward pass uses; they are left out.
        notes: how the weights of parametrised and pruned modules were treated.
    """

    layers: dict[str, LayerTrace]
    quantity: Literal["hessian", "gauss-newton"]
    estimator: Used
    per_example: Tensor
    uncovered: tuple[str, ...]
    bent: tuple[str, ...]
    classes: int
    precision: Precision | Literal["float64"] = "fp32"
    precision_note: str | None = None
    rounded: TraceRounding | None = None
    idle: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def total(self) -> float:
        """``sum_k Tr(H_k)``."""
        return sum(layer.trace for layer in self.layers.values())

    @property
    def total_standard_error(self) -> float:
        """Standard error of :attr:`total`, over examples and by rounding.

        It counts the layers' correlation.
        """
        return math.hypot(standard_error(self.per_example.sum(1)), self.total_rounding)

    @property
    def total_rounding(self) -> float:
        """The error of :attr:`total` by rounding of backward passes; zero in float32."""
        return 0.0 if self.rounded is None else self.rounded.error()

    __repr__ = brief


@checked_features
def layer_traces(
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
) -> LayerTraces:
    """``Tr(H_k)`` for every weight of a convolution, linear layer or attention projection.

    ``H_k`` is the Hessian of the mean cross-entropy ``L(w; x, y)`` in that weight alone.

    - ``exact`` computes the Gauss-Newton trace without estimator noise. It equals the Hessian's
      wherever the network is piecewise linear in each layer's weights (ReLU-like activations,
      evaluation-mode batch norm, pooling, residual sums), which is checked on the data.
    - ``gauss-newton`` estimates the same trace without bias from one backward pass per probe
      instead of one per class.
    - ``hessian`` draws unbiased probes of the true trace for smooth networks; a negative trace is
      reported as it is.
    - ``auto`` takes a Gauss-Newton estimator where that gives the Hessian (``exact`` up to 128
      classes, ``gauss-newton`` above), else ``hessian``.

    Where each use of a weight is a call of its module with one row per example, many examples are
    processed together. All other weights (the projections of ``nn.MultiheadAttention``,
    sequence-first layers, transposed convolutions, weights used as functions, embeddings,
    positional parameters) are measured one example at a time by plain automatic differentiation,
    with the same meaning and the same errors.

    Weights are the effective ones: of parametrised modules the tensors they compute with, of pruned
    ones the entries that are left. Weights that no forward pass uses are left out.

    Args:
        model: images to logits ``(n, k)``; it is left unchanged.
        x: images ``(n, c, h, w)``, usually adversarial ones, held fixed.
        y: labels ``(n,)``.
        estimator: ``auto``, ``exact``, ``gauss-newton`` or ``hessian``.
        layers: names of modules, meaning their weight, or of parameters; ``"all"`` for every
            parameter of the network; ``None`` for the weights named above.
        probes: draws per example for ``gauss-newton`` and ``hessian``.
        seed: of the probes.
        index: ``(n,)`` the examples' positions in their data set, which seed their probes; by
            default 0 to n - 1.
        memory: bytes, by estimate, that may be used in addition to the network; sets how many
            images are processed together and changes no result beyond rounding.
        precision: ``auto``, ``tf32`` and ``bf16`` run the backward passes of ``exact`` and
            ``gauss-newton`` in the fastest arithmetic that the device has and that was not ruled
            out, with sums in float32. The first 32 images are computed in float32, too. Rounding
            that they show is counted in the standard errors; where it is a fifth of one, a more
            precise arithmetic is taken, and a note gives the reason.
            Devices that share the images of a network have no TF32: it is a setting of the process,
            and forward passes are in float32.
            ``float64`` takes a copy of the network in float64, in which other ReLUs may be active:
            a preactivation within rounding of zero may have the other sign in float32, which shows
            in the third digit of a single layer's trace.
        progress: called with the number of examples done and of all.

    Returns:
        Traces with standard errors by layer, and per example.

    Raises:
        NotMeasuredError: no layers, a single class, values that are not finite, or a network that
            has no second derivative (``exact`` and ``gauss-newton`` do not need it).
        UsageError: an unknown layer, one image that needs more than ``memory``, or no probes.

    Source: exact traces: Wang et al., "Improving robust generalization by direct PAC-Bayesian bound
    minimization", CVPR 2023, Eq. 14-16; see :mod:`robaudit.curvature.exact`.

    >>> net = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    >>> found = layer_traces(net, torch.rand(5, 1, 2, 2), torch.zeros(5).long())
    >>> found.quantity, list(found.layers)
    ('hessian', ['1', '3'])
    """
    index = torch.arange(len(x)) if index is None else index
    n = len(x)
    if n == 1:  # networks are not run on a single image; the copy is left out of the result
        x, y, index = (torch.cat([rows, rows]) for rows in (x, y, index))
    given, model = model, effective(model, x)
    notes = effective_notes(given, model)
    asked: Asked = "fp32" if precision == "float64" else precision
    if precision == "float64":
        model, x = in_float64(model, x), x.double()
    with frozen(model), plain_attention():
        device = device_of(model)
        first = x[:1].to(device)
        classes = classes_of(model, x)
        targets = find_targets(model, layers, x)
        bent = _bent(model, targets, x, y, estimator, seed)
        chosen: Used = estimator if estimator != "auto" else "hessian"
        if estimator == "auto" and not bent:
            chosen = gauss_newton_estimator(classes)
        columns = {"exact": classes - 1, "gauss-newton": probes, "hessian": 1}[chosen]
        check_memory(model, targets, first, memory)
        size = chunks(footprint(model, targets.recorded, first), columns, device, memory)
        asked = "fp32" if chosen == "hessian" else asked
        others = [(copied, find_targets(copied, layers, x)) for copied in replicas(model, x)[1:]]
        networks, devices = [(model, targets), *others], devices_of(model)
        several, most = len(networks) > 1, size.images
        if device.type != "cpu":
            most = min(most, max(2, -(-len(x) // len(networks))))
        tried = candidates(asked, device)
        if several:
            tried = tuple(one for one in tried if one != "tf32")
        trial = RoundingTrial(tried, len(x))
        if several and asked == "tf32":
            trial.note = _NO_TF32

        def computed(at: int, chunk: slice, precision: Precision) -> tuple[Tensor, bool]:
            (network, own), places = networks[at], index[chunk]
            images, labels = x[chunk].to(devices[at]), y[chunk].to(devices[at])
            if chosen == "hessian":
                found = hessian_rows(network, own, images, labels, places, probes, seed)
                return found.cpu(), True
            factors = logit_factors(chosen, probes, seed)
            found, linear = gauss_newton_rows(
                network, own, images, factors, places, size.columns, precision, several
            )
            return found.cpu(), linear

        def rounded_rows(chunk: slice, precision: Precision) -> Tensor:
            return computed(0, chunk, precision)[0]

        def rows() -> Iterator[tuple[slice, Tensor, bool]]:
            def on_device(at: int, chunk: slice) -> tuple[Tensor, bool]:
                return computed(at, chunk, trial.used)

            for slices, share in zip(trial.slices(most), (1, len(networks)), strict=True):
                found = over_devices(devices[:share], slices, on_device)
                for chunk, (part, linear) in zip(slices, found, strict=True):
                    yield chunk, part, linear

        parts = []
        # Which kernel attention has is a setting of the process, as are the filters of warnings.
        plain = bool(targets.alone) or chosen == "hessian"
        kernel = sdpa_kernel(SDPBackend.MATH) if plain else nullcontext()
        with kernel, warnings.catch_warnings() if several else nullcontext():
            for chunk, found, linear in rows():
                trial.compare(found, partial(rounded_rows, chunk))
                if not bent and not linear:
                    bent = tuple(bent_layers(model, targets, x[chunk].to(device), seed))
                    if bent and estimator == "auto":
                        break
                parts.append(found)
                if progress is not None:
                    progress(min(chunk.stop, n), n)
    if bent and estimator == "auto" and chosen != "hessian":
        # The network is smooth on a later image: start again with an estimator of the Hessian.
        again = layer_traces(
            given,
            x[:n],
            y[:n],
            estimator="hessian",
            layers=layers,
            probes=probes,
            seed=seed,
            index=index[:n],
            memory=memory,
            precision=precision,
            progress=progress,
        )
        return replace(again, bent=bent)
    per_example = torch.cat(parts)[:n]
    if not bool(per_example.isfinite().all()):
        broken = int((~per_example.isfinite().all(1)).sum())
        raise NotMeasuredError(
            f"the layer traces are not finite on {broken} of {n} images",
            "The logits or their derivatives overflow there; look at the loss on these images.",
        )
    weights = targets.weights
    measured = list(weights)
    order = [measured.index(name) for name in targets.names]
    per_example = per_example[:, order]
    rounded, off = None, [0.0] * len(order)
    if trial.rounding is not None:
        first, coarse = trial.rounding.exact[:, order], trial.rounding.coarse[:, order]
        rounded = TraceRounding(first, coarse, n, others=per_example[len(first) :])
        off = rounded.layer_errors()
    return LayerTraces(
        layers={
            name: _layer_trace(name, weights[name], column, rounding)
            for name, column, rounding in zip(targets.names, per_example.T, off, strict=True)
        },
        quantity="gauss-newton" if chosen != "hessian" and bent else "hessian",
        estimator=chosen,
        per_example=per_example,
        uncovered=targets.uncovered,
        bent=bent,
        classes=classes,
        precision="float64" if precision == "float64" else trial.used,
        precision_note=trial.note,
        rounded=rounded,
        idle=targets.idle,
        notes=(*notes, *idle_note(targets.idle)),
    )


def gauss_newton_estimator(classes: int) -> Literal["exact", "gauss-newton"]:
    """The cheaper estimator of the Gauss-Newton trace for this number of classes."""
    return "exact" if classes <= _EXACT_CLASSES else "gauss-newton"


def classes_of(model: nn.Module, x: Tensor) -> int:
    """The number of logits."""
    with frozen(model), torch.no_grad():
        logits = model(x[:1].to(device_of(model)))
    if logits.dim() != 2 or logits.shape[1] < 2:
        raise NotMeasuredError(
            f"the network's output has shape {tuple(logits.shape)} for one image; cross-entropy "
            "has curvature from two classes on"
        )
    return int(logits.shape[1])


def _bent(
    model: nn.Module, targets: Targets, x: Tensor, y: Tensor, estimator: Estimator, seed: int
) -> tuple[str, ...]:
    """Why Hessian and Gauss-Newton matrix differ, on a random draw of the examples."""
    check_derivatives(model, x, "gradient")
    if targets.linear and not smooth_modules(model) and estimator != "hessian":
        return ()
    few = torch.randperm(len(x), generator=generator(seed, "linearity"))[:_ASKED]
    try:
        with checked_double_backward(model, x, y):
            return tuple(bent_layers(model, targets, x[few].to(device_of(model)), seed))
    except NoSecondDerivativeError as error:
        if estimator in ("auto", "hessian"):
            raise NoSecondDerivativeError(
                error.message, "The estimator exact measures the Gauss-Newton traces without it."
            ) from error
        return (error.message,)


def _layer_trace(name: str, weight: Tensor, column: Tensor, rounding: float) -> LayerTrace:
    norm = float(torch.linalg.vector_norm(weight.detach(), dtype=torch.float64))
    error = math.hypot(standard_error(column), rounding)
    return LayerTrace(name, norm, float(column.mean()), error, rounding)
