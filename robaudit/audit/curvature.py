"""Probes of curvature: WCI with its layer traces, and the Hessian's spectrum."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from torch import Tensor, nn

from robaudit import curvature
from robaudit.audit.context import Context
from robaudit.audit.numbers import estimate
from robaudit.audit.plan import Hessian, Wci
from robaudit.checkpoints import Classifier
from robaudit.curvature import WeightCurvature
from robaudit.schema import Measurement


def wci(context: Context, settings: Wci) -> list[Measurement]:
    """WCI, its bound, the weight norm and the total trace, on every split."""
    found = []
    for split in context.splits:
        attacked = context.adversarial(split, settings.pgd)
        n = len(attacked.x)
        with context.watch(f"layer traces on {n} {split} examples") as progress:
            index = curvature.wci(
                context.model,
                attacked.x,
                context.y(split, n),
                estimator=settings.estimator,
                probes=settings.probes,
                seed=context.seed,
                index=context.index(split, n),
                progress=progress,
            )
        context.keep(split, "trace", index.traces.per_example)
        found += _wci_measurements(index, split, n, settings, _own_names(context.model))
    norm = math.sqrt(sum(layer.frobenius**2 for layer in index.layers))
    return [*found, Measurement(name="weights.frobenius", split=context.main, value=norm)]


def _wci_measurements(
    index: WeightCurvature, split: str, n: int, settings: Wci, own: Callable[[str], str]
) -> list[Measurement]:
    traces = index.traces
    described: dict[str, Any] = {"pgd": asdict(settings.pgd), "estimator": traces.estimator}
    if traces.estimator != "exact":
        described["probes"] = settings.probes
    warnings = [] if index.note is None else [own(index.note)]
    if traces.uncovered:
        warnings.append(
            f"{len(traces.uncovered)} weight tensors could not be measured and are not counted: "
            f"{', '.join(own(name) for name in traces.uncovered[:3])}"
        )
    if traces.quantity == "gauss-newton" and index.note is None:
        warnings.append(f"Gauss-Newton traces, not the Hessian's: {own(traces.bent[0])}")
    details = {
        "quantity": traces.quantity,
        "estimator": traces.estimator,
        "bias": _finite(index.bias),
        "uncovered": [own(name) for name in traces.uncovered],
        "layers": [
            {
                "name": own(layer.name),
                "frobenius": layer.frobenius,
                "trace": layer.trace,
                "standard_error": _finite(layer.standard_error),
                "contribution": layer.contribution,
                "share": layer.share,
            }
            for layer in index.layers
        ],
    }
    common: dict[str, Any] = {"n": n, "settings": described}
    return [
        estimate(
            "wci", split, index.value, index.standard_error,
            details=details, warnings=warnings, **common,
        ),
        Measurement(name="wci.bound", split=split, value=index.bound, **common),
        estimate(
            "trace.total", split, traces.total, traces.total_standard_error,
            details={"quantity": traces.quantity}, **common,
        ),
    ]  # fmt: skip


def hessian(context: Context, settings: Hessian) -> list[Measurement]:
    """Largest and smallest eigenvalue, trace with density, and the largest relative eigenvalue."""
    attacked = context.adversarial(context.main, settings.pgd, settings.n)
    n = len(attacked.x)
    y = context.y(context.main, n)

    def run(relative: bool) -> curvature.Spectrum:
        label = "relative spectrum" if relative else "spectrum"
        with context.watch(f"{label} on {n} {context.main} examples") as progress:
            return curvature.spectrum(
                context.model,
                attacked.x,
                y,
                top=1 if relative else settings.top,
                probes=1 if relative else settings.probes,
                steps=settings.steps,
                density_steps=settings.density_steps,
                tolerance=settings.tolerance,
                relative=relative,
                seed=context.seed,
                progress=progress,
            )

    found = run(relative=False)
    theirs = _second_opinion(context, settings, attacked.x, y)
    common: dict[str, Any] = {"n": n, "settings": asdict(settings), "split": context.main}
    late = [] if found.note is None else [found.note]
    measurements = [
        Measurement(
            name="hessian.largest",
            value=found.largest[0],
            details={
                "eigenvalues": list(found.largest),
                "residuals": list(found.residuals),
                "products": found.products,
                "restarts": found.restarts,
                "dimension": found.dimension,
                **theirs.get("hessian.largest", {}),
            },
            warnings=late,
            **common,
        ),
        Measurement(
            name="hessian.smallest",
            value=found.smallest,
            details={"residuals": [found.smallest_residual]},
            **common,
        ),
        estimate(
            name="hessian.trace",
            value=found.trace,
            standard_error=found.trace_standard_error,
            details={
                "density": {
                    "grid": found.density.grid.tolist(),
                    "density": found.density.density.tolist(),
                    "standard_error": [_finite(v) for v in found.density.standard_error.tolist()],
                    "sigma": found.density.sigma,
                },
                **theirs.get("hessian.trace", {}),
            },
            **common,
        ),
    ]
    if settings.relative:
        own = run(relative=True)
        measurements.append(
            Measurement(
                name="hessian.relative_largest",
                value=own.largest[0],
                details={"residuals": list(own.residuals), "products": own.products},
                warnings=[] if own.note is None else [own.note],
                **common,
            )
        )
    return measurements


def _second_opinion(
    context: Context, settings: Hessian, x: Tensor, y: Tensor
) -> dict[str, dict[str, Any]]:
    """What PyHessian adds to the details of which measurement, where it is asked."""
    if settings.engine != "pyhessian":
        return {}
    with context.watch(f"PyHessian on {len(x)} {context.main} examples"):
        found = curvature.pyhessian(context.model, x, y, top=settings.top, seed=context.seed)
    trace = {
        "trace": found.trace,
        "standard_error": _finite(found.trace_standard_error),
        "probes": found.probes,
    }
    return {
        "hessian.largest": {"pyhessian": {"eigenvalues": list(found.eigenvalues)}},
        "hessian.trace": {"pyhessian": trace},
    }


def _own_names(model: nn.Module) -> Callable[[str], str]:
    """Layer names, alone or in a sentence, as the network's author knows them.

    A :class:`Classifier` holds the author's network as ``network``; of another module every name
    is its author's.
    """
    if not isinstance(model, Classifier):
        return str
    return lambda text: re.sub(r"(?<![\w.])network\.(?=\w)", "", text)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
