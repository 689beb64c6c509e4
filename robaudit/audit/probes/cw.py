"""Robust accuracy under PGD on the margin, the loss of Carlini and Wagner."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Literal, Self

from robaudit.audit.probes.pgd import Pgd
from robaudit.measures import measure

if TYPE_CHECKING:
    from robaudit.audit.context import Context
    from robaudit.audit.plan import Plan
    from robaudit.schema import Measurement


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
        ),
    )

    loss: Literal["ce", "margin"] = "margin"

    @classmethod
    def like(cls, pgd: Pgd) -> Self:
        """With the steps, restarts and step size of a PGD."""
        return cls(**{**asdict(pgd), "loss": "margin"})

    @classmethod
    def for_gate(cls, plan: Plan) -> Self | None:
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
        from robaudit.attacks.result import known
        from robaudit.audit.cross_check import diagnosed
        from robaudit.audit.doubts import signs_of_masking
        from robaudit.audit.numbers import accuracy, curve, passes

        attacked = context.adversarial(context.main, self)
        context.keep(context.main, "accuracy.cw", attacked.robust)
        context.broken["cw"] = known(attacked.broken_x), ~attacked.robust
        seen = diagnosed(context, self.loss, attacked)
        details = {
            **passes(attacked),
            **curve(context, context.within(self), with_loss=False),
            "diagnostics": asdict(seen),
        }
        return [
            accuracy(
                "accuracy.cw",
                context.main,
                attacked.robust,
                settings=self.described(context.threat),
                details=details,
                doubts=signs_of_masking(seen),
            )
        ]
