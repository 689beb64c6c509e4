"""Probes of curvature: WCI with its layer traces, the PAC-Bayes terms, the top layer's trace."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

from robaudit import curvature
from robaudit.attacks import AttackResult
from robaudit.audit.context import Context
from robaudit.audit.names import authors, inside
from robaudit.audit.numbers import estimate, finite
from robaudit.audit.plan import Bound, TopLayer, Wci
from robaudit.curvature import WeightCurvature
from robaudit.curvature.traces import Estimator
from robaudit.errors import NotMeasuredError
from robaudit.schema import Measurement

_NO_BOUND = Measurement(
    name="pacbayes.bound",
    status="skipped",
    reason="it is of the training split, and there is no training data",
)
_BESIDE = "WCI uses the Gauss-Newton traces, as on the other split"
_NO_SIZE = (
    "how large the training split is is not known: beta and lambda are the number of examples "
    "measured, with which the bound changes"
)


def wci(context: Context, settings: Wci) -> list[Measurement]:
    """WCI, its bound, the weight norm and the total trace, on every split; the PAC-Bayes terms."""
    constants = settings.bound
    curvature.check_constants(constants.beta, constants.s0, constants.lambda_)
    own = authors(context.model)

    def measured(split: str, estimator: Estimator) -> WeightCurvature:
        attacked = context.adversarial(split, settings.pgd)
        n = len(attacked.x)
        with context.watch(f"layer traces on {n} {split} examples") as progress:
            return curvature.wci(
                context.model,
                attacked.x,
                context.y(split, n),
                estimator=estimator,
                layers=inside(context.model, settings.layers),
                probes=settings.probes,
                seed=context.seed,
                index=context.index(split, n),
                memory=settings.memory,
                precision="float64" if context.double else context.precision,
                progress=progress,
            )

    indices = {split: measured(split, settings.estimator) for split in context.splits}
    fallen = [one for one in indices.values() if one.note is not None]
    if fallen:  # Gauss-Newton traces of one split are not to stand beside Hessians of another
        for split, one in indices.items():
            if one.note is None:
                indices[split] = replace(measured(split, fallen[0].traces.estimator), note=_BESIDE)
    found = []
    for split, index in indices.items():
        attacked = context.adversarial(split, settings.pgd)
        context.keep(split, "trace", index.traces.per_example)
        found += _wci_measurements(index, split, len(attacked.x), settings, own)
        # The training split comes last, where it is there: a bound is of no other.
        if split == context.training:
            found += _bounds(context, attacked, index, settings, own)
    if context.training is None and not isinstance(settings.layers, tuple):
        found.append(_NO_BOUND.model_copy(update={"split": context.main}))
    norm = math.sqrt(sum(layer.frobenius**2 for layer in index.layers))
    settings_of = {} if settings.layers is None else {"layers": settings.layers}
    return [
        *found,
        Measurement(name="weights.frobenius", split=context.main, value=norm, settings=settings_of),
    ]


def _bounds(
    context: Context,
    attacked: AttackResult,
    index: WeightCurvature,
    settings: Wci,
    own: Callable[[str], str],
) -> list[Measurement]:
    """The PAC-Bayes terms; of some layers alone they would bound nothing.

    Loss and trace are means over the examples that are there; the size in ``beta`` and ``lambda``
    is the whole training split's, so that the bound does not move with how many these are.
    """
    if isinstance(settings.layers, tuple):
        return []
    split = context.training
    assert split is not None
    constants = settings.bound
    whole = context.splits[split].population
    size = float(whole or len(attacked.x))
    found = curvature.bound_terms(
        attacked.loss,
        index,
        attacked.x[0].numel(),
        size if constants.beta is None else constants.beta,
        constants.s0,
        size if constants.lambda_ is None else constants.lambda_,
    )
    assumed = constants.beta is None or constants.lambda_ is None
    warnings = [] if whole is not None or not assumed else [_NO_SIZE]
    used = Bound(found.beta, found.s0, found.lambda_)
    deviations = {own(name): finite(value) for name, value in found.deviations.items()}
    details = {
        **{name: asdict(getattr(found, name)) for name in ("loss", "weights", "curvature")},
        "wci_term": asdict(found.index),
        "deviations": deviations,
    }
    for term in ("loss", "weights", "curvature", "wci_term"):
        details[term]["standard_error"] = finite(details[term]["standard_error"])
    return [
        estimate(
            "pacbayes.bound",
            split,
            found.bound.value,
            found.bound.standard_error,
            unit="nats",
            n=len(attacked.x),
            details=details,
            warnings=warnings,
            settings={"pgd": asdict(settings.pgd), **asdict(used)},
        )
    ]


def top_layer(context: Context, settings: TopLayer) -> list[Measurement]:
    """Trace of the training loss's Hessian in the top layer; skipped where there is no such."""
    split = context.main
    attacked = context.adversarial(split, settings.pgd)
    n = len(attacked.x)
    try:
        found = curvature.top_layer_trh(
            context.model,
            context.splits[split].x[:n],
            attacked.x,
            context.y(split, n),
            settings.objective,
            penalty=settings.penalty,
        )
    except NotMeasuredError as error:
        return [
            Measurement(name="trh.top_layer", split=split, status="skipped", reason=error.message)
        ]
    context.keep(split, "trh.top_layer", found.per_example)
    return [
        estimate(
            "trh.top_layer",
            split,
            found.value,
            found.standard_error,
            n=n,
            details={"terms": found.terms, "layer": authors(context.model)(found.layer)},
            settings={
                "pgd": asdict(settings.pgd),
                "objective": found.objective,
                "penalty": found.penalty,
            },
        )
    ]


def _wci_measurements(
    index: WeightCurvature, split: str, n: int, settings: Wci, own: Callable[[str], str]
) -> list[Measurement]:
    traces = index.traces
    described: dict[str, Any] = {"pgd": asdict(settings.pgd), "estimator": traces.estimator}
    if traces.estimator != "exact":
        described["probes"] = settings.probes
    if settings.layers is not None:
        described["layers"] = settings.layers
    warnings = [] if index.note is None else [own(index.note)]
    warnings += [own(note) for note in traces.notes]
    if traces.precision_note is not None:
        warnings.append(own(traces.precision_note))
    if traces.uncovered:
        few = ", ".join(own(name) for name in traces.uncovered[:3])
        warnings.append(
            f"{len(traces.uncovered)} parameters are no weights of convolutions, linear layers or "
            f"attention projections and are not counted (--layers all counts them): {few}"
        )
    if traces.quantity == "gauss-newton" and index.note is None:
        warnings.append(f"Gauss-Newton traces, not the Hessian's: {own(traces.bent[0])}")
    details = {
        "quantity": traces.quantity,
        "estimator": traces.estimator,
        "precision": traces.precision,
        "bias": finite(index.bias),
        "uncovered": [own(name) for name in traces.uncovered],
        "idle": [own(name) for name in traces.idle],
        "layers": [
            {
                "name": own(layer.name),
                "frobenius": layer.frobenius,
                "trace": layer.trace,
                "standard_error": finite(layer.standard_error),
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
