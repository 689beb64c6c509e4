"""Probes of flatness; the reference is the robust loss that is measured anyway."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from robaudit import flatness
from robaudit.attacks.result import AttackResult
from robaudit.audit.context import Context
from robaudit.audit.names import authors
from robaudit.audit.numbers import LEVEL, estimate, finite
from robaudit.audit.plan import Average, Worst
from robaudit.flatness.protocols import reference_restarts
from robaudit.flatness.rises import Rise
from robaudit.schema import Measurement
from robaudit.statistics import t_interval
from robaudit.types import ThreatModel


def average(context: Context, settings: Average) -> list[Measurement]:
    """Average-case flatness of the robust loss and, where asked for, of the clean one."""

    def measure(kind: str, threat: ThreatModel | None, xi: float, draws: int) -> Any:
        return _run(
            context, settings, kind, flatness.average, threat, xi,
            perturbations=draws, ball=settings.ball, restarts=settings.pgd.restarts,
            tolerance=settings.tolerance if threat is not None else None,
        )  # fmt: skip

    radii = (*settings.radii, settings.xi)
    draws = settings.perturbations
    robust = [measure("average", context.threat, xi, draws) for xi in radii]
    found = [_average(context, settings, "flatness.average", robust)]
    if settings.clean:
        clean = [
            measure("average clean", None, xi, len(same.perturbed))
            for xi, same in zip(radii, robust, strict=True)
        ]
        found.append(_average(context, settings, "flatness.clean_average", clean))
    return found


def worst(context: Context, settings: Worst) -> list[Measurement]:
    """Worst-case flatness of the robust loss and, where asked for, of the clean one."""

    def measure(kind: str, threat: ThreatModel | None) -> list[Any]:
        found: list[Any] = []
        for xi in (*settings.radii, settings.xi):
            new = _run(
                context, settings, kind, flatness.worst, threat, xi,
                passes=settings.passes, restarts=settings.restarts,
                attack_restarts=settings.pgd.restarts,
            )  # fmt: skip
            # What was found within a smaller radius is within this one, too.
            worse = found and settings.protocol == "default" and found[-1].value > new.value
            found.append(found[-1] if worse else new)
        return found

    robust = measure("worst-case", context.threat)
    made = [_worst(context, settings, "flatness.worst", robust)]
    if settings.clean:
        clean = measure("worst-case clean", None)
        made.append(_worst(context, settings, "flatness.clean_worst", clean))
    return made


def _average(context: Context, settings: Average, name: str, found: list[Any]) -> Measurement:
    last = found[-1]
    return _measurement(
        context, settings, name, found,
        perturbed=list(last.perturbed),
        perturbations=len(last.perturbed),
        standard_error_examples=finite(last.standard_error_examples),
        standard_error_perturbations=finite(last.standard_error_perturbations),
        warnings=_short_of(settings, last) if name == "flatness.average" else (),
    )  # fmt: skip


def _worst(context: Context, settings: Worst, name: str, found: list[Any]) -> Measurement:
    return _measurement(context, settings, name, found, restarts=list(found[-1].restarts))


def _short_of(settings: Average, found: Any) -> list[str]:
    """Why the standard error is not within the tolerance, where it is not."""
    limit = settings.tolerance
    if limit is None or found.standard_error < limit:
        return []
    text = f"the standard error is above the tolerance of {limit:g} after all draws"
    if found.standard_error_examples >= limit:
        return [f"{text}: that of so few examples alone is"]
    return [text]


def _run(
    context: Context,
    settings: Average | Worst,
    kind: str,
    measure: Callable[..., Any],
    threat: ThreatModel | None,
    xi: float,
    **own: Any,
) -> Any:
    reference = _reference(context, settings)
    examples = context.splits[context.main]
    several = f" within {xi:g}" if settings.radii else ""
    label = f"{kind} flatness{several} on {len(examples)} {context.main} examples"
    with context.watch(label) as progress:
        return measure(
            context.model,
            examples.x,
            examples.y,
            threat,
            xi=xi,
            protocol=settings.protocol,
            steps=settings.pgd.steps,
            step_size=settings.pgd.step_over_eps * context.threat.eps,
            seed=context.seed,
            index=examples.index,
            reference=None if threat is None else reference,
            batch_size=context.batch_size,
            progress=progress,
            **own,
        )


def _reference(context: Context, settings: Average | Worst) -> AttackResult:
    restarts = reference_restarts(settings.protocol, settings.pgd.restarts)
    pgd = replace(settings.pgd, restarts=restarts)
    return context.adversarial(context.main, pgd)


def _measurement(
    context: Context,
    settings: Average | Worst,
    name: str,
    found: list[Any],
    warnings: Sequence[str] = (),
    **own: Any,
) -> Measurement:
    """The flatness within the largest radius; the others go to ``details.sweep``."""
    last, own_names = found[-1], authors(context.model)
    details = {"xi": settings.xi, "reference": last.reference, **own, "parts": _parts(last.parts)}
    n = len(context.splits[context.main])
    if settings.radii:
        radii = (*settings.radii, settings.xi)
        details["sweep"] = [
            {"xi": xi, **_row(one), **_ends(one, n), **_draws(one)}
            for xi, one in zip(radii, found, strict=True)
        ]
    return estimate(
        name,
        context.main,
        last.value,
        last.standard_error,
        degrees=_degrees(last, n),
        n=n,
        unit="nats",
        settings={**asdict(settings), "radii": list(settings.radii)},
        details=details,
        warnings=list(
            dict.fromkeys([*warnings, *(own_names(note) for one in found for note in one.notes)])
        ),
    )


def _parts(parts: Mapping[str, Rise]) -> dict[str, dict[str, Any]]:
    return {
        name: {"n": part.n, "reference": part.reference, **_row(part)}
        for name, part in parts.items()
    }


def _row(found: Any) -> dict[str, Any]:
    return {"value": found.value, "standard_error": finite(found.standard_error)}


def _degrees(found: Any, n: int) -> int:
    """Of the standard error: draws less one; examples less one where these are fewer, or alone."""
    return min(n, *([len(found.perturbed)] if hasattr(found, "perturbed") else [n])) - 1


def _ends(found: Any, n: int) -> dict[str, float]:
    """Of the interval, where there is one."""
    if not math.isfinite(found.standard_error) or _degrees(found, n) < 1:
        return {}
    interval = t_interval(found.value, found.standard_error, _degrees(found, n), LEVEL)
    return {"low": interval.low, "high": interval.high}


def _draws(found: Any) -> dict[str, int]:
    return {"perturbations": len(found.perturbed)} if hasattr(found, "perturbed") else {}
