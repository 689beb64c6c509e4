"""Worst-case flatness of the robust loss and, where asked for, of the clean one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from robaudit.audit.flatness import FlatnessProbe
from robaudit.audit.probe import GRADIENT
from robaudit.audit.probes.pgd import Pgd
from robaudit.measures import measure
from robaudit.protocols import Protocol
from robaudit.schema import Measurement

if TYPE_CHECKING:
    from robaudit.audit.context import Context
    from robaudit.types import ThreatModel


@dataclass(frozen=True)
class Worst(FlatnessProbe):
    """Worst-case flatness.

    Attributes:
        passes: of the search, over all examples.
        restarts: of the search.
    """

    name = "worst"
    measures = (
        measure(
            "flatness.worst",
            "Worst-case flatness",
            place=20,
            heading="Flatn.\nworst",
            study="worst flatness",
            formula="`max RLoss(w + nu) - RLoss(w)` over `‖nu_l‖ <= xi ‖w_l‖`, by joint ascent; "
            "not below 0, since `nu = 0` is a candidate",
            error="s.e. over examples at the worst weights found; Student's t interval, examples "
            "less one",
        ),
        measure(
            "flatness.clean_worst",
            "Worst-case flatness, clean loss",
            basis="clean",
            place=40,
            ruled=False,
            formula="`flatness.worst` of the loss on clean images",
            error="as of `flatness.worst`",
        ),
    )

    pgd: Pgd
    xi: float = 0.00075
    passes: int = 20
    restarts: int = 10
    radii: tuple[float, ...] = ()
    protocol: Protocol = "default"
    clean: bool = False

    def __post_init__(self) -> None:
        self.check("worst-case", 0.00075)

    def price(self, n: int, n_train: int) -> int:
        search = self.restarts * (self.passes + 1) * GRADIENT
        return n * (search + self.pgd.passes_each)

    def run(self, context: Context) -> list[Measurement]:
        found = [self._measured(context, "worst-case", "flatness.worst", context.threat)]
        if self.clean:
            found.append(self._measured(context, "worst-case clean", "flatness.clean_worst", None))
        return found

    def _measured(
        self, context: Context, kind: str, name: str, threat: ThreatModel | None
    ) -> Measurement:
        from robaudit import flatness

        found: list[Any] = []
        for xi in (*self.radii, self.xi):
            new = self.within(
                context,
                kind,
                flatness.worst,
                threat,
                xi,
                passes=self.passes,
                restarts=self.restarts,
                attack_restarts=self.pgd.restarts,
            )
            # What was found within a smaller radius is within this one, too.
            worse = found and self.protocol == "default" and found[-1].value > new.value
            found.append(found[-1] if worse else new)
        return self.measurement(context, name, found, [], restarts=list(found[-1].restarts))
