"""Robust accuracy and robust loss under PGD, and the generalisation gaps."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from robaudit.audit.doubts import signs_of_masking
from robaudit.audit.numbers import accuracy, curve, error_gap, loss, loss_gap, passes
from robaudit.audit.probe import GRADIENT, Attack, Probe, Withstood
from robaudit.errors import UsageError
from robaudit.measures import Measure, measure
from robaudit.schema import Measurement

if TYPE_CHECKING:
    from robaudit.attacks import AttackResult
    from robaudit.audit.context import Context
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
            formula="share correct at `x` and at every iterate of PGD; with `--last-iterate` at "
            "the last of each restart, as papers mostly report",
        ),
        measure(
            "loss.robust",
            "Robust loss",
            place=20,
            heading="Robust\nloss",
            study="robust loss",
            outcome=True,
            formula="mean over examples of the highest `CE` over all PGD steps and restarts, the "
            "clean image included",
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
            formula="robust error under PGD, test minus train",
            error="Newcombe interval; s.e.",
        ),
        measure(
            "gap.loss",
            "Robust loss, test minus train",
            place=20,
            unit="nats",
            heading="Loss\ngap",
            study="loss gap",
            outcome=True,
            formula="`loss.robust`, test minus train",
            error="s.e. of a difference of independent means, normal interval",
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
        described = self.described(context.threat)
        results = {split: context.adversarial(split, self) for split in context.splits}
        found: list[Measurement] = []
        for split, result in results.items():
            found += [
                self._accuracy(context, split, result),
                loss("loss.robust", split, result.loss, settings=described),
            ]
            context.keep(split, "loss.robust", result.loss)
        if len(results) == 2:
            test, train = results.values()
            found += [
                error_gap(test.robust, train.robust, settings=described),
                loss_gap(test.loss, train.loss, settings=described),
            ]
        return [m.model_copy(update={"doubts": found[0].doubts}) for m in found]

    def _accuracy(
        self, context: Context, split: str, result: AttackResult, with_loss: bool = True
    ) -> Measurement:
        """Accuracy under the attack; on the audited split with its curve, and what casts doubt."""
        from robaudit.attacks.result import known
        from robaudit.audit.cross_check import diagnosed

        context.keep(split, f"accuracy.{self.name}", result.robust)
        details: dict[str, Any] = {**passes(result), **context.searched_details(result)}
        doubts: list[str] = []
        if split == context.main:
            context.broken[self.name] = known(result.broken_x), ~result.robust
            seen = diagnosed(context, self.loss, result)
            doubts = signs_of_masking(seen)
            within = context.within(self)
            if within:
                context.nearer[self.name] = ~within[-1].robust
            details |= curve(context, within, with_loss)
            details["diagnostics"] = asdict(seen)
        return accuracy(
            f"accuracy.{self.name}",
            split,
            result.robust,
            settings=self.described(context.threat),
            details=details,
            doubts=doubts,
        )

    def withstood(self, part: Context) -> Withstood:
        """As :meth:`run` finds, by a PGD that stops attacking an example once it is broken."""
        from robaudit.audit.cross_check import diagnosed

        found = part.adversarial(part.main, self, mode="accuracy")
        return Withstood(found.robust, diagnosed(part, self.loss, found), [])


PGD10 = Pgd(steps=10)
"""Of the paper on the Weight-Curvature Index, sec. 3: step eps/4 (2/255 at 8/255)."""


@dataclass(frozen=True)
class AtPgdExamples(Probe):
    """A probe of the examples that a PGD makes of every image of the audited split.

    Attributes:
        pgd: makes the examples; PGD-10, as WCI has it, unless given.
    """

    pgd: Pgd = PGD10

    def shared(self, n: int, n_train: int) -> dict[Pgd, int]:
        return {self.pgd: n}
