"""Percentiles of the margin, on clean images and on PGD examples."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from robaudit.audit.input_space import clean_and_adversarial
from robaudit.audit.numbers import LEVEL
from robaudit.audit.probes.pgd import AtPgdExamples
from robaudit.measures import measure
from robaudit.schema import Measurement

if TYPE_CHECKING:
    from torch import Tensor

    from robaudit.audit.context import Context

_MARGIN = "`f_y(x) - max_{i != y} f_i(x)` over examples"
_SPREAD = "its quotient with the standard deviation of an image's logits"


@dataclass(frozen=True)
class Margins(AtPgdExamples):
    """The median and the tenth percentile of the margin of the logits.

    Positive where an example is classified correctly.
    """

    name = "margins"
    measures = (
        measure(
            "margin.median",
            "Median margin",
            basis="clean",
            place=200,
            any_threat=True,
            study="median margin",
            formula=f"median of {_MARGIN}",
        ),
        measure(
            "margin.p10",
            "Margin, 10th percentile",
            basis="clean",
            place=201,
            any_threat=True,
            study="margin p10",
            formula=f"tenth percentile of {_MARGIN}",
        ),
        measure(
            "margin.normalized",
            "Median normalised margin",
            basis="clean",
            place=202,
            any_threat=True,
            study="normalised margin",
            formula=f"median of {_SPREAD}, which multiples of the logits do not change",
        ),
        measure(
            "margin.adversarial_median",
            "Median margin, adversarial",
            place=203,
            study="median margin (adversarial)",
            formula="`margin.median` at the `x'`",
        ),
        measure(
            "margin.adversarial_p10",
            "Margin, 10th percentile, adversarial",
            place=204,
            study="margin p10 (adversarial)",
            formula="`margin.p10` at the `x'`",
        ),
        measure(
            "margin.adversarial_normalized",
            "Median normalised margin, adversarial",
            place=205,
            study="normalised margin (adversarial)",
            formula="`margin.normalized` at the `x'`",
        ),
    )

    def price(self, n: int, n_train: int) -> int:
        return 2 * n

    def run(self, context: Context) -> list[Measurement]:
        from robaudit.attacks.objectives import margin
        from robaudit.audit.outputs import finite_logits

        y = context.splits[context.main].y
        found = []
        for prefix, images in clean_and_adversarial(context, self.pgd):
            logits = finite_logits(context, images).double()
            margins = -margin(logits, y)
            spread = logits.std(1, correction=0)
            context.keep(context.main, f"{prefix}margin", margins)
            found += [
                self._quantile(context, f"margin.{prefix}median", margins, 0.5),
                self._quantile(context, f"margin.{prefix}p10", margins, 0.1),
                # Logits that are all equal have the margin zero.
                self._quantile(
                    context, f"margin.{prefix}normalized", margins / spread.clamp_min(1e-30), 0.5
                ),
            ]
        return found

    def _quantile(
        self, context: Context, name: str, values: Tensor, probability: float
    ) -> Measurement:
        from robaudit.statistics import quantile_interval

        value, interval = quantile_interval(values.numpy(), probability, LEVEL)
        settings: dict[str, Any] = {"pgd": asdict(self.pgd)} if "adversarial" in name else {}
        return Measurement(
            name=name,
            split=context.main,
            value=value,
            interval=interval,
            n=len(values),
            settings=settings,
        )
