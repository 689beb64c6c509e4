"""Probes of the Hessian's spectrum."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

import torch
from torch import Tensor

from robaudit import curvature
from robaudit.audit.context import Context
from robaudit.audit.names import authors, inside, restricting
from robaudit.audit.numbers import estimate, finite
from robaudit.audit.plan import Hessian
from robaudit.curvature.selection import chosen_parameters
from robaudit.curvature.spectrum import MEMORY
from robaudit.curvature.traces import Estimator, gauss_newton_estimator
from robaudit.engine import device_of, effective, frozen, in_float64
from robaudit.schema import Measurement

# Of a Gauss-Newton matrix: examples times classes less one. The cost grows with its square.
_SMALL_RANK = 1024


def hessian(context: Context, settings: Hessian) -> list[Measurement]:
    """Largest and smallest eigenvalue, trace with density, and the largest relative eigenvalue."""
    attacked = context.adversarial(context.main, settings.pgd, settings.n)
    n = len(attacked.x)
    if context.double:
        double = in_float64(context.model, attacked.x)
        attacked = replace(attacked, x=attacked.x.double())
        context = replace(context, model=double)
    y = context.y(context.main, n)
    layers = restricting(context.model, settings.layers)
    small = _diagonalised(context, settings, attacked.x)

    def run(relative: bool) -> curvature.Spectrum:
        label = "relative spectrum" if relative else "spectrum"
        with context.watch(f"{label} on {n} {context.main} examples") as progress:
            if small:
                return curvature.small_spectrum(
                    context.model,
                    attacked.x,
                    top=1 if relative else settings.top,
                    relative=relative,
                    layers=layers,
                    memory=settings.memory or MEMORY,
                    progress=progress,
                )
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
                operator=settings.operator,
                layers=layers,
                memory=settings.memory,
                seed=context.seed,
                progress=progress,
            )

    found = run(relative=False)
    traces = _traces(context, settings, attacked.x, y)
    spread = _spread(context, settings, attacked.x, y)
    theirs = _second_opinion(context, settings, attacked.x, y)
    own = run(relative=True)
    told = [authors(context.model)(note) for note in found.notes]
    probed = 0.0 if small else found.trace_standard_error
    common: dict[str, Any] = {
        "n": n,
        "settings": {**asdict(settings), "method": found.method},
        "split": context.main,
    }
    return [
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
            warnings=[*told, *_late(found)],
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
            value=traces.total,
            standard_error=traces.total_standard_error,
            details={
                "estimator": traces.estimator,
                "probed": {"trace": found.trace, "standard_error": finite(probed)},
                "density": {
                    "grid": found.density.grid.tolist(),
                    "density": found.density.density.tolist(),
                    "standard_error": [finite(v) for v in found.density.standard_error.tolist()],
                    "sigma": found.density.sigma,
                },
                **spread,
                **theirs.get("hessian.trace", {}),
            },
            **common,
        ),
        Measurement(
            name="hessian.relative_largest",
            value=own.largest[0],
            details={"residuals": list(own.residuals), "products": own.products},
            warnings=_late(own),
            **common,
        ),
    ]


def _diagonalised(context: Context, settings: Hessian, x: Tensor) -> bool:
    """Whether a Gauss-Newton matrix has so small a rank that all its eigenvalues are had at once.

    The labels do not enter it, nor do probes.
    """
    if settings.operator != "gauss-newton":
        return False
    columns = _classes(context, x) - 1
    plain = effective(context.model, x)
    chosen = chosen_parameters(plain, restricting(plain, settings.layers)).values()
    dim = sum(parameter.numel() for parameter in chosen)
    element = max(parameter.element_size() for parameter in chosen)
    needed = curvature.gram_bytes(len(x), columns, dim, element)
    return len(x) * columns <= _SMALL_RANK and needed <= (settings.memory or MEMORY)


def _classes(context: Context, x: Tensor) -> int:
    with frozen(context.model), torch.no_grad():
        return int(context.model(x[:1].to(device_of(context.model))).shape[1])


def _late(found: curvature.Spectrum) -> list[str]:
    return [] if found.note is None else [found.note]


def _traces(context: Context, settings: Hessian, x: Tensor, y: Tensor) -> curvature.LayerTraces:
    """The matrix's trace is the sum of its blocks', which are exact where the network allows it."""
    estimator: Estimator = "auto"
    if settings.operator == "gauss-newton":
        estimator = gauss_newton_estimator(_classes(context, x))
    with context.watch(f"trace on {len(x)} {context.main} examples") as progress:
        return curvature.layer_traces(
            context.model,
            x,
            y,
            estimator=estimator,
            layers=inside(context.model, settings.layers) or "all",
            seed=context.seed,
            index=context.index(context.main, len(x)),
            progress=progress,
        )


def _spread(context: Context, settings: Hessian, x: Tensor, y: Tensor) -> dict[str, Any]:
    """How each layer's eigenvalues lie around their mean."""
    if settings.spread_probes == 0:
        return {}
    own = authors(context.model)
    names = inside(context.model, settings.layers)
    with context.watch(f"spread of each layer's eigenvalues on {len(x)} examples") as progress:
        spreads = curvature.layer_spreads(
            context.model,
            x,
            y,
            layers=names if isinstance(names, tuple) else None,
            probes=settings.spread_probes,
            seed=context.seed,
            progress=progress,
        )
    rows = [{"name": own(name), **asdict(spread)} for name, spread in spreads.items()]
    return {"layers": rows}


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
        "standard_error": finite(found.trace_standard_error),
        "probes": found.probes,
    }
    return {
        "hessian.largest": {"pyhessian": {"eigenvalues": list(found.eigenvalues)}},
        "hessian.trace": {"pyhessian": trace},
    }
