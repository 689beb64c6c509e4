"""Average-case flatness of the robust loss and, where asked for, of the clean one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from robaudit.audit.flatness import FlatnessProbe
from robaudit.audit.numbers import finite
from robaudit.audit.probes.pgd import Pgd
from robaudit.errors import UsageError
from robaudit.measures import measure
from robaudit.protocols import Protocol
from robaudit.schema import Measurement

if TYPE_CHECKING:
    from robaudit.audit.context import Context
    from robaudit.types import ThreatModel


@dataclass(frozen=True)
class Average(FlatnessProbe):
    """Average-case flatness.

    Attributes:
        perturbations: draws, or the most of them where ``tolerance`` may stop earlier.
    """

    name = "average"
    measures = (
        measure(
            "flatness.average",
            "Average flatness",
            place=10,
            heading="Flatn.\naverage",
            study="avg. flatness",
            formula="mean over `nu` of `RLoss(w + nu)`, minus `RLoss(w)`; `‖nu_l‖ = xi ‖w_l‖` for "
            "every parameter tensor, random directions",
            error="s.e. over examples and over draws, added in squares; Student's t interval, its "
            "degrees the draws less one (examples less one where they are fewer)",
        ),
        measure(
            "flatness.clean_average",
            "Average flatness, clean loss",
            basis="clean",
            place=30,
            ruled=False,
            formula="`flatness.average` of the loss on clean images, at the same draws",
            error="as of `flatness.average`",
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
        if self.tolerance is not None and not 0 < self.tolerance < float("inf"):
            raise UsageError(f"the tolerance must be a positive number, not {self.tolerance:g}")
        self.check("average", 0.5)

    def price(self, n: int, n_train: int) -> int:
        return n * self.perturbations * self.pgd.passes_each

    def run(self, context: Context) -> list[Measurement]:
        from robaudit import flatness

        def measured(kind: str, threat: ThreatModel | None, xi: float, draws: int) -> Any:
            return self.within(
                context,
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
        found = [self._made(context, "flatness.average", robust, self._short_of(robust[-1]))]
        if self.clean:
            clean = [
                measured("average clean", None, xi, len(same.perturbed))
                for xi, same in zip(radii, robust, strict=True)
            ]
            found.append(self._made(context, "flatness.clean_average", clean, []))
        return found

    def _made(
        self, context: Context, name: str, found: list[Any], warnings: list[str]
    ) -> Measurement:
        last = found[-1]
        return self.measurement(
            context,
            name,
            found,
            warnings,
            perturbed=list(last.perturbed),
            perturbations=len(last.perturbed),
            standard_error_examples=finite(last.standard_error_examples),
            standard_error_perturbations=finite(last.standard_error_perturbations),
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
