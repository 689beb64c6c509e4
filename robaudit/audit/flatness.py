"""What average- and worst-case flatness share; their reference is the robust loss of the audit."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from robaudit.audit.names import authors
from robaudit.audit.numbers import LEVEL, estimate, finite
from robaudit.audit.probe import Probe
from robaudit.audit.probes.pgd import Pgd
from robaudit.protocols import Protocol, check_xi, reference_restarts
from robaudit.schema import Measurement

if TYPE_CHECKING:
    from robaudit.audit.context import Context
    from robaudit.flatness.rises import Rise
    from robaudit.types import ThreatModel


class FlatnessProbe(Probe):
    """A flatness of the robust loss and, where asked for, of the clean one.

    Attributes:
        xi: relative radius in weight space.
        radii: smaller than ``xi``, measured as well.
        clean: the flatness of the clean loss, too.
    """

    pgd: Pgd
    xi: float
    radii: tuple[float, ...]
    protocol: Protocol
    clean: bool

    def check(self, case: str, usual: float) -> None:
        """Refuse radii and restarts that cannot be; ``case`` names the flatness.

        Raises:
            UsageError: a radius that is not positive, or restarts that the protocol excludes.
        """
        for xi in (*self.radii, self.xi):
            check_xi(xi, case, usual)
        reference_restarts(self.protocol, self.pgd.restarts)

    @property
    def reference(self) -> Pgd:
        """The attack on the unperturbed network."""
        return replace(self.pgd, restarts=reference_restarts(self.protocol, self.pgd.restarts))

    @property
    def expected(self) -> tuple[str, ...]:
        return tuple(row.name for row in self.measures if self.clean or row.basis != "clean")

    def shared(self, n: int, n_train: int) -> dict[Pgd, int]:
        return {self.reference: n}

    def within(
        self,
        context: Context,
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
        reference = context.adversarial(context.main, self.reference)
        examples = context.splits[context.main]
        several = f" within {xi:g}" if self.radii else ""
        label = f"{kind} flatness{several} on {len(examples)} {context.main} examples"
        with context.watch(label) as progress:
            return measure(
                context.model,
                examples.x,
                examples.y,
                threat,
                xi=xi,
                protocol=self.protocol,
                steps=self.pgd.steps,
                step_size=self.pgd.step_over_eps * context.threat.eps,
                seed=context.seed,
                index=examples.index,
                reference=None if threat is None else reference,
                precision=context.precision,
                batch_size=context.batch_size,
                progress=progress,
                **own,
            )

    def measurement(
        self, context: Context, name: str, found: list[Any], warnings: list[str], **own: Any
    ) -> Measurement:
        """The flatness within the largest radius; those within all go to ``details.sweep``.

        Args:
            found: by radius, ascending.
            own: further details.
        """
        last, n = found[-1], len(context.splits[context.main])
        parts = {
            name: {"n": part.n, "reference": part.reference, **_row(part)}
            for name, part in last.parts.items()
        }
        details = {"xi": self.xi, "reference": last.reference, **own, "parts": parts}
        details["searched_in"] = last.searched
        if self.radii:
            details["sweep"] = [
                {"xi": xi, **_row(one), **_ends(one, n), **_draws(one)}
                for xi, one in zip((*self.radii, self.xi), found, strict=True)
            ]
        names = authors(context.model)
        notes = [names(note) for one in found for note in one.notes]
        return estimate(
            name,
            context.main,
            last.value,
            last.standard_error,
            degrees=_degrees(last, n),
            n=n,
            unit="nats",
            settings={**asdict(self), "radii": list(self.radii)},  # type: ignore[call-overload]
            details=details,
            warnings=list(dict.fromkeys([*warnings, *notes])),
        )


def _row(found: Rise) -> dict[str, Any]:
    return {"value": found.value, "standard_error": finite(found.standard_error)}


def _degrees(found: Any, n: int) -> int:
    """Of the standard error: draws less one; examples less one where these are fewer, or alone."""
    return min(n, *([len(found.perturbed)] if hasattr(found, "perturbed") else [n])) - 1


def _ends(found: Any, n: int) -> dict[str, float]:
    """Of the interval, where there is one."""
    from robaudit.statistics import t_interval

    if not math.isfinite(found.standard_error) or _degrees(found, n) < 1:
        return {}
    interval = t_interval(found.value, found.standard_error, _degrees(found, n), LEVEL)
    return {"low": interval.low, "high": interval.high}


def _draws(found: Any) -> dict[str, int]:
    return {"perturbations": len(found.perturbed)} if hasattr(found, "perturbed") else {}
