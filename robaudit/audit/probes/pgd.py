"""Robust accuracy and robust loss under PGD, and the generalisation gaps."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from robaudit.audit.probe import GRADIENT, Attack, Withstood
from robaudit.errors import UsageError
from robaudit.measures import Measure, measure

if TYPE_CHECKING:
    from torch import Tensor

    from robaudit.audit.context import Context
    from robaudit.schema import Measurement
    from robaudit.types import ThreatModel


@dataclass(frozen=True)
class Pgd(Attack):
    """A PGD: ``step_over_eps`` is in units of eps, so that one setting fits every threat model.

    Robust accuracy and robust loss are measured on every split, the gaps where there are two.
    """

    name = "pgd"
    measures: ClassVar[tuple[Measure, ...]] = (
        measure(
            "accuracy.pgd",
            "Robust accuracy, {attack}",
            place=20,
            attack="PGD",
            stepped=True,
            stages=("clean", "pgd"),
            passes=60,
            heading="PGD\nacc. %",
        ),
        measure(
            "loss.robust",
            "Robust loss",
            place=20,
            heading="Robust\nloss",
            study="robust loss",
            outcome=True,
        ),
        measure(
            "gap.error",
            "Robust error, test minus train",
            place=10,
            unit="fraction",
            low=-1.0,
            high=1.0,
            study="error gap",
            outcome=True,
        ),
        measure(
            "gap.loss",
            "Robust loss, test minus train",
            place=20,
            unit="nats",
            heading="Loss\ngap",
            study="loss gap",
            outcome=True,
        ),
    )

    steps: int = 20
    restarts: int = 1
    step_over_eps: float = 0.25
    loss: Literal["ce", "margin"] = "ce"
    last_iterate: bool = False

    def __post_init__(self) -> None:
        if self.steps < 1 or self.restarts < 1:
            raise UsageError("an attack needs at least one step and one restart")
        if not 0 < self.step_over_eps < float("inf"):
            raise UsageError(
                f"the step size must be a positive number, not {self.step_over_eps:g} eps"
            )

    @property
    def expected(self) -> tuple[str, ...]:
        return "accuracy.pgd", "loss.robust"

    @property
    def title(self) -> str:
        """Its name with its steps, for progress displays."""
        return f"{'CW' if self.loss == 'margin' else 'PGD'}-{self.steps}"

    def described(self, threat: ThreatModel) -> dict[str, Any]:
        return {
            "steps": self.steps,
            "restarts": self.restarts,
            "step_size": self.step_over_eps * threat.eps,
            "loss": self.loss,
            **({"last_iterate": True} if self.last_iterate else {}),
        }

    @property
    def passes_each(self) -> int:
        """Passes of one example."""
        return self.restarts * (self.steps * GRADIENT + 1) + 1

    def price(self, n: int, n_train: int) -> int:
        return 0

    def shared(self, n: int, n_train: int) -> dict[Pgd, int]:
        return {self: n + n_train}

    def run(self, context: Context) -> list[Measurement]:
        from robaudit.attacks.result import known
        from robaudit.audit.cross_check import diagnosed
        from robaudit.audit.doubts import signs_of_masking
        from robaudit.audit.numbers import accuracy, curve, error_gap, loss, loss_gap, passes

        described = self.described(context.threat)
        found: list[Measurement] = []
        robust: dict[str, Tensor] = {}
        losses: dict[str, Tensor] = {}
        doubts: list[str] = []
        for split in context.splits:
            attacked = context.adversarial(split, self)
            robust[split], losses[split] = attacked.robust, attacked.loss
            context.keep(split, "accuracy.pgd", attacked.robust)
            context.keep(split, "loss.robust", attacked.loss)
            details: dict[str, Any] = passes(attacked)
            if split == context.main:
                context.broken["pgd"] = known(attacked.broken_x), ~attacked.robust
                seen = diagnosed(context, self.loss, attacked)
                doubts = signs_of_masking(seen)
                details |= {**curve(context, context.within(self)), "diagnostics": asdict(seen)}
            found += [
                accuracy(
                    "accuracy.pgd", split, attacked.robust, settings=described, details=details
                ),
                loss("loss.robust", split, attacked.loss, settings=described),
            ]
        if len(context.splits) == 2:
            found += [
                error_gap(*robust.values(), settings=described),
                loss_gap(*losses.values(), settings=described),
            ]
        return [m.model_copy(update={"doubts": doubts}) for m in found]

    def withstood(self, part: Context) -> Withstood:
        """As :meth:`run` finds, by a PGD that stops attacking an example once it is broken."""
        from robaudit.attacks.pgd import pgd
        from robaudit.audit.cross_check import diagnosed
        from robaudit.engine import frozen

        examples = part.splits[part.main]
        # Both run the original network in float32, so that the steps are those of an audit's PGD.
        judge, searcher = part.runner(), part.runner()
        with (
            part.watch(f"{self.title} on {len(examples)} {part.main} examples") as progress,
            frozen(part.model),
        ):
            found = pgd(
                judge,
                examples.x,
                examples.y,
                part.threat,
                steps=self.steps,
                restarts=self.restarts,
                step_size=self.step_over_eps * part.threat.eps,
                loss=self.loss,
                mode="accuracy",
                searcher=searcher,
                seed=part.seed,
                index=examples.index,
                progress=progress,
            )
        return Withstood(found.robust, diagnosed(part, self.loss, found), [])
