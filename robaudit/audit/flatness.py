"""Probes of flatness; the reference is the robust loss that is measured anyway."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from robaudit import flatness
from robaudit.audit.context import Context
from robaudit.audit.numbers import estimate, finite
from robaudit.audit.plan import Average, Worst
from robaudit.schema import Measurement


def average(context: Context, settings: Average) -> list[Measurement]:
    """Average-case flatness."""
    found = _run(
        context, settings, "average", flatness.average,
        perturbations=settings.perturbations, restarts=settings.pgd.restarts,
    )  # fmt: skip
    details = {
        "perturbed": list(found.perturbed),
        "standard_error_examples": finite(found.standard_error_examples),
        "standard_error_perturbations": finite(found.standard_error_perturbations),
    }
    return [_measurement(context, settings, "flatness.average", found, details)]


def worst(context: Context, settings: Worst) -> list[Measurement]:
    """Worst-case flatness."""
    found = _run(
        context, settings, "worst-case", flatness.worst,
        passes=settings.passes, restarts=settings.restarts, attack_restarts=settings.pgd.restarts,
    )  # fmt: skip
    details = {"restarts": list(found.restarts)}
    return [_measurement(context, settings, "flatness.worst", found, details)]


def _run(
    context: Context,
    settings: Average | Worst,
    kind: str,
    measure: Callable[..., Any],
    **own: Any,
) -> Any:
    reference = context.adversarial(context.main, settings.pgd, settings.n)
    n = len(reference.x)
    with context.watch(f"{kind} flatness on {n} {context.main} examples") as progress:
        return measure(
            context.model,
            context.splits[context.main].x[:n],
            context.y(context.main, n),
            context.threat,
            xi=settings.xi,
            steps=settings.pgd.steps,
            step_size=settings.pgd.step_over_eps * context.threat.eps,
            seed=context.seed,
            index=context.index(context.main, n),
            reference=reference,
            batch_size=context.batch_size,
            progress=progress,
            **own,
        )


def _measurement(
    context: Context, settings: Average | Worst, name: str, found: Any, details: dict[str, Any]
) -> Measurement:
    there = len(context.splits[context.main])
    return estimate(
        name,
        context.main,
        found.value,
        found.standard_error,
        n=min(settings.n or there, there),
        unit="nats",
        settings=asdict(settings),
        details={"xi": settings.xi, "reference": found.reference, **details},
    )
