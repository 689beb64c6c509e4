"""The error of the loss's linear approximation, around clean images and around PGD examples."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from robaudit.audit.input_space import clean_and_adversarial, place
from robaudit.audit.numbers import average, estimate
from robaudit.audit.probe import GRADIENT
from robaudit.audit.probes.pgd import AtPgdExamples
from robaudit.errors import UsageError
from robaudit.measures import measure
from robaudit.schema import Measurement

if TYPE_CHECKING:
    from robaudit.audit.context import Context


@dataclass(frozen=True)
class Linearity(AtPgdExamples):
    """Local linearity: how far the loss in the ball is from linear, as far as PGD finds it.

    Attributes:
        steps: of each of two searches for the largest error.
        step_over_eps: the length of a step in units of the radius.
    """

    name = "linearity"
    measures = (
        measure(
            "linearity.error",
            "Local linearity error",
            place=230,
            unit="nats",
            study="linearity error",
            formula="mean of `max_d |l(x + d) - l(x) - d·grad l(x)|` over the ball and the box, "
            "`l` the cross-entropy, by PGD on that: a lower bound",
        ),
        measure(
            "linearity.relative_error",
            "Local linearity error, relative",
            place=231,
            unit="",
            study="relative linearity error",
            formula="`linearity.error` over the mean of `eps ‖grad l(x)‖_*`, the most by which the "
            "linear approximation itself rises",
            error="s.e. of a ratio of means (delta method), normal interval",
        ),
        measure(
            "linearity.adversarial_error",
            "Local linearity error, adversarial",
            place=232,
            unit="nats",
            study="linearity error (adversarial)",
            formula="`linearity.error` around the `x'`",
        ),
        measure(
            "linearity.adversarial_relative_error",
            "Local linearity error, relative, adversarial",
            place=233,
            unit="",
            study="relative linearity error (adversarial)",
            formula="`linearity.relative_error` around the `x'`",
            error="as of `linearity.relative_error`",
        ),
    )

    steps: int = 10
    step_over_eps: float = 0.25

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise UsageError("a search needs at least one step")
        if not 0 < self.step_over_eps < float("inf"):
            raise UsageError(
                f"the step size must be a positive number, not {self.step_over_eps:g} eps"
            )

    def price(self, n: int, n_train: int) -> int:
        return 2 * n * (GRADIENT + 2 * (self.steps * GRADIENT + 1))

    def run(self, context: Context) -> list[Measurement]:
        from robaudit.attacks import local_linearity
        from robaudit.engine import frozen
        from robaudit.statistics import ratio_of_means

        split, examples = context.main, context.splits[context.main]
        found = []
        for prefix, images in clean_and_adversarial(context, self.pgd):
            label = f"local linearity around {place(prefix, context, len(images))}"
            with context.watch(label) as progress, frozen(context.model):
                made = local_linearity(
                    context.runner(),
                    images,
                    examples.y,
                    context.threat,
                    steps=self.steps,
                    step_size=self.step_over_eps * context.threat.eps,
                    seed=context.seed,
                    index=examples.index,
                    progress=progress,
                )
            name = f"linearity.{prefix}error"
            context.keep(split, name, made.error)
            settings: dict[str, Any] = {"steps": self.steps, "step_over_eps": self.step_over_eps}
            settings |= {"pgd": asdict(self.pgd)} if prefix else {}
            details = {"forwards": made.forwards, "backwards": made.backwards}
            ratio = ratio_of_means(made.error.numpy(), made.first_order.numpy())
            found += [
                average(name, split, made.error, unit="nats", settings=settings, details=details),
                estimate(
                    f"linearity.{prefix}relative_error",
                    split,
                    ratio.value,
                    ratio.standard_error,
                    n=ratio.n,
                    settings=settings,
                ),
            ]
        return found
