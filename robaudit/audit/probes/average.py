"""Average-case flatness of the robust loss and, where asked for, of the clean one."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from robaudit.audit.probe import Probe
from robaudit.audit.probes.pgd import Pgd
from robaudit.errors import UsageError
from robaudit.measures import measure

if TYPE_CHECKING:
    from robaudit.audit.context import Context
    from robaudit.flatness.protocols import Protocol
    from robaudit.schema import Measurement
    from robaudit.types import ThreatModel


@dataclass(frozen=True)
class Average(Probe):
    """Average-case flatness.

    Attributes:
        perturbations: draws, or the most of them where ``tolerance`` may stop earlier.
        radii: smaller than ``xi``, measured as well.
        clean: the flatness of the clean loss, too.
    """

    name = "average"
    measures = (
        measure(
            "flatness.average",
            "Average flatness",
            place=10,
            heading="Flatn.\naverage",
            study="avg. flatness",
        ),
        measure(
            "flatness.clean_average",
            "Average flatness, clean loss",
            basis="clean",
            place=30,
            ruled=False,
        ),
    )

    pgd: Pgd
    xi: float = 0.5
    perturbations: int = 10
    ball: Literal["sphere", "ball"] = "sphere"
    tolerance: float | None = None
    radii: tuple[float, ...] = ()
    protocol: Protocol = "default"
    clean: bool = False

    def __post_init__(self) -> None:
        from robaudit.flatness.protocols import reference_restarts
        from robaudit.flatness.weights import check_radius

        for xi in (*self.radii, self.xi):
            check_radius(xi, "average", 0.5)
        if self.tolerance is not None and not 0 < self.tolerance < float("inf"):
            raise UsageError(f"the tolerance must be a positive number, not {self.tolerance:g}")
        reference_restarts(self.protocol, self.pgd.restarts)

    @property
    def expected(self) -> tuple[str, ...]:
        return ("flatness.average", *(["flatness.clean_average"] if self.clean else []))

    @property
    def reference(self) -> Pgd:
        """The attack on the unperturbed network."""
        from robaudit.flatness.protocols import reference_restarts

        return replace(self.pgd, restarts=reference_restarts(self.protocol, self.pgd.restarts))

    def price(self, n: int, n_train: int) -> int:
        return n * self.perturbations * self.pgd.passes_each

    def shared(self, n: int, n_train: int) -> dict[Pgd, int]:
        return {self.reference: n}

    def run(self, context: Context) -> list[Measurement]:
        from robaudit import flatness
        from robaudit.audit.flatness import flatness_within

        def measured(kind: str, threat: ThreatModel | None, xi: float, draws: int) -> Any:
            return flatness_within(
                context,
                self,
                kind,
                flatness.average,
                threat,
                xi,
                perturbations=draws,
                ball=self.ball,
                restarts=self.pgd.restarts,
                tolerance=self.tolerance if threat is not None else None,
            )

        radii = (*self.radii, self.xi)
        robust = [measured("average", context.threat, xi, self.perturbations) for xi in radii]
        found = [self._measurement(context, "flatness.average", robust, self._short_of(robust[-1]))]
        if self.clean:
            clean = [
                measured("average clean", None, xi, len(same.perturbed))
                for xi, same in zip(radii, robust, strict=True)
            ]
            found.append(self._measurement(context, "flatness.clean_average", clean, []))
        return found

    def _measurement(
        self, context: Context, name: str, found: list[Any], warnings: list[str]
    ) -> Measurement:
        from robaudit.audit.flatness import measurement
        from robaudit.audit.numbers import finite

        last = found[-1]
        return measurement(
            context,
            self,
            name,
            found,
            perturbed=list(last.perturbed),
            perturbations=len(last.perturbed),
            standard_error_examples=finite(last.standard_error_examples),
            standard_error_perturbations=finite(last.standard_error_perturbations),
            warnings=warnings,
        )

    def _short_of(self, found: Any) -> list[str]:
        """Why the standard error is not within the tolerance, where it is not."""
        limit = self.tolerance
        if limit is None or found.standard_error < limit:
            return []
        text = f"the standard error is above the tolerance of {limit:g} after all draws"
        if found.standard_error_examples >= limit:
            return [f"{text}: that of so few examples alone is"]
        return [text]
