"""What average- and worst-case flatness share; their reference is the robust loss of the audit."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from robaudit.audit.context import Context
from robaudit.audit.names import authors
from robaudit.audit.numbers import LEVEL, estimate, finite
from robaudit.audit.probes.average import Average
from robaudit.audit.probes.worst import Worst
from robaudit.flatness.rises import Rise
from robaudit.schema import Measurement
from robaudit.statistics import t_interval
from robaudit.types import ThreatModel


def flatness_within(
    context: Context,
    settings: Average | Worst,
    kind: str,
    measure: Callable[..., Any],
    threat: ThreatModel | None,
    xi: float,
    **own: Any,
) -> Any:
    """Run ``measure`` within the relative radius ``xi``.

    Args:
        kind: of flatness, in progress displays.
        measure: :func:`robaudit.flatness.average` or :func:`robaudit.flatness.worst`.
        threat: ``None`` for the clean loss.
        own: its arguments that the other one does not have.
    """
    reference = context.adversarial(context.main, settings.reference)
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


def measurement(
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
