"""Robust accuracy under PGD on the margin, the loss of Carlini and Wagner."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Literal, Self

from robaudit.audit.probes.pgd import Pgd
from robaudit.measures import measure
from robaudit.schema import Measurement

if TYPE_CHECKING:
    from robaudit.audit.context import Context
    from robaudit.audit.plan import Plan


@dataclass(frozen=True)
class Cw(Pgd):
    """A :class:`Pgd` that maximises the margin, on the audited split."""

    name = "cw"
    measures = (
        measure(
            "accuracy.cw",
            "Robust accuracy, {attack}",
            place=30,
            attack="CW",
            stepped=True,
            stages=("clean", "cw"),
            passes=60,
            formula="the same, PGD on the margin `max_{i != y} f_i - f_y`",
        ),
    )

    loss: Literal["ce", "margin"] = "margin"

    @classmethod
    def like(cls, pgd: Pgd) -> Self:
        """With the steps, restarts and step size of a PGD."""
        return cls(**{**asdict(pgd), "loss": "margin"})

    @classmethod
    def fitting(cls, plan: Plan) -> Self | None:
        pgd = plan.get(Pgd)
        return plan.get(cls) or (None if pgd is None else cls.like(pgd))

    @property
    def expected(self) -> tuple[str, ...]:
        return ("accuracy.cw",)

    def price(self, n: int, n_train: int) -> int:
        return n * self.passes_each

    def shared(self, n: int, n_train: int) -> dict[Pgd, int]:
        return {}

    def run(self, context: Context) -> list[Measurement]:
        result = context.adversarial(context.main, self)
        return [self._accuracy(context, context.main, result, with_loss=False)]
