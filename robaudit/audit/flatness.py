"""Probes of flatness."""

from __future__ import annotations

from dataclasses import asdict

from robaudit import flatness
from robaudit.audit.context import Context
from robaudit.audit.numbers import estimate
from robaudit.audit.plan import Average, Worst
from robaudit.schema import Measurement


def average(context: Context, settings: Average) -> list[Measurement]:
    """Average-case flatness; the reference is the robust loss that is measured anyway."""
    reference = context.adversarial(context.main, settings.pgd, settings.n)
    n = len(reference.x)
    with context.watch(f"average flatness on {n} {context.main} examples") as progress:
        found = flatness.average(
            context.model,
            context.splits[context.main].x[:n],
            context.y(context.main, n),
            context.threat,
            xi=settings.xi,
            perturbations=settings.perturbations,
            steps=settings.pgd.steps,
            step_size=settings.pgd.step_over_eps * context.threat.eps,
            restarts=settings.pgd.restarts,
            seed=context.seed,
            index=context.index(context.main, n),
            reference=reference,
            batch_size=context.batch_size,
            progress=progress,
        )
    details = {
        "xi": settings.xi,
        "reference": found.reference,
        "perturbed": list(found.perturbed),
        "standard_error_examples": found.standard_error_examples,
        "standard_error_perturbations": found.standard_error_perturbations,
    }
    return [
        estimate(
            "flatness.average", context.main, found.value, found.standard_error,
            n=n, unit="nats", settings=asdict(settings), details=_finite_only(details),
        )
    ]  # fmt: skip


def worst(context: Context, settings: Worst) -> list[Measurement]:
    """Worst-case flatness."""
    reference = context.adversarial(context.main, settings.pgd, settings.n)
    n = len(reference.x)
    with context.watch(f"worst-case flatness on {n} {context.main} examples") as progress:
        found = flatness.worst(
            context.model,
            context.splits[context.main].x[:n],
            context.y(context.main, n),
            context.threat,
            xi=settings.xi,
            passes=settings.passes,
            restarts=settings.restarts,
            steps=settings.pgd.steps,
            step_size=settings.pgd.step_over_eps * context.threat.eps,
            attack_restarts=settings.pgd.restarts,
            seed=context.seed,
            index=context.index(context.main, n),
            reference=reference,
            batch_size=context.batch_size,
            progress=progress,
        )
    details = {
        "xi": settings.xi,
        "reference": found.reference,
        "restarts": list(found.restarts),
    }
    return [
        estimate(
            "flatness.worst", context.main, found.value, found.standard_error,
            n=n, unit="nats", settings=asdict(settings), details=details,
        )
    ]  # fmt: skip


def _finite_only(details: dict[str, object]) -> dict[str, object]:
    return {
        key: None if isinstance(value, float) and value != value else value
        for key, value in details.items()
    }
