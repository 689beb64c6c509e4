"""Calibration error, Brier score and negative log-likelihood, on clean images and PGD examples."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from robaudit.audit.input_space import clean_and_adversarial
from robaudit.audit.numbers import LEVEL, average, loss
from robaudit.audit.probes.pgd import AtPgdExamples
from robaudit.measures import measure
from robaudit.schema import Measurement

if TYPE_CHECKING:
    from torch import Tensor

    from robaudit.audit.context import Context


@dataclass(frozen=True)
class Calibration(AtPgdExamples):
    """Whether the softmax's largest probability is the frequency with which it is right."""

    name = "calibration"
    measures = (
        measure(
            "calibration.ece",
            "Calibration error, debiased",
            basis="clean",
            place=10,
            any_threat=True,
            unit="fraction",
            high=1.0,
            study="calibration error",
            formula="`sqrt(max(0, sum_b n_b/n (r_b² - s_b²)))` over 15 bins of equal mass: `r_b` "
            "is a bin's accuracy less its mean largest softmax probability, `s_b` its s.e.",
            error="bootstrap over examples, or Clopper-Pearson of the accuracy where that is wider",
        ),
        measure(
            "calibration.brier",
            "Brier score",
            basis="clean",
            place=20,
            any_threat=True,
            unit="",
            high=2.0,
            study="Brier score",
            formula="mean of `sum_k (softmax(f(x))_k - [k = y])²`",
        ),
        measure(
            "calibration.nll",
            "Negative log-likelihood",
            basis="clean",
            place=30,
            any_threat=True,
            unit="nats",
            study="NLL",
            formula="mean of `-log softmax(f(x))_y`, as `loss.clean`",
        ),
        measure(
            "calibration.adversarial_ece",
            "Calibration error, debiased, adversarial",
            place=40,
            unit="fraction",
            high=1.0,
            study="calibration error (adversarial)",
            formula="`calibration.ece` at the `x'`",
            error="as of `calibration.ece`",
        ),
        measure(
            "calibration.adversarial_brier",
            "Brier score, adversarial",
            place=50,
            unit="",
            high=2.0,
            study="Brier score (adversarial)",
            formula="`calibration.brier` at the `x'`",
        ),
        measure(
            "calibration.adversarial_nll",
            "Negative log-likelihood, adversarial",
            place=60,
            unit="nats",
            formula="`calibration.nll` at the `x'`; `loss.robust` is that of its own PGD",
        ),
    )

    def price(self, n: int, n_train: int) -> int:
        return 2 * n

    def run(self, context: Context) -> list[Measurement]:
        import torch

        from robaudit.attacks.objectives import cross_entropy
        from robaudit.audit.outputs import finite_logits
        from robaudit.statistics import brier_scores

        split, y = context.main, context.splits[context.main].y
        found = []
        for prefix, images in clean_and_adversarial(context, self.pgd):
            logits = finite_logits(context, images).double()
            probabilities = logits.softmax(1)
            brier = torch.from_numpy(brier_scores(probabilities.numpy(), y.numpy()))
            values = {"brier": brier, "nll": cross_entropy(logits, y)}
            for name, one in values.items():
                context.keep(split, f"calibration.{prefix}{name}", one)
            settings: dict[str, Any] = {"pgd": asdict(self.pgd)} if prefix else {}
            found += [
                self._error(context, f"calibration.{prefix}ece", probabilities, settings),
                average(f"calibration.{prefix}brier", split, brier, settings=settings),
                loss(f"calibration.{prefix}nll", split, values["nll"], settings=settings),
            ]
        return found

    def _error(
        self, context: Context, name: str, probabilities: Tensor, settings: dict[str, Any]
    ) -> Measurement:
        from robaudit.statistics import calibration_error, clopper_pearson, equal_width_ece

        confidence, predicted = probabilities.max(1)
        right = predicted == context.splits[context.main].y

        def ends(count: int, n: int) -> dict[str, float]:
            interval = clopper_pearson(count, n, LEVEL)
            return {"low": interval.low, "high": interval.high}

        made = calibration_error(confidence.numpy(), right.numpy(), level=LEVEL, seed=context.seed)
        return Measurement(
            name=name,
            split=context.main,
            value=made.value,
            unit="fraction",
            n=len(right),
            interval=made.interval,
            settings=settings,
            details={
                "squared": made.squared,
                "plug_in": made.plug_in,
                "equal_width": equal_width_ece(confidence.numpy(), right.numpy()),
                "bins": [asdict(one) | ends(one.correct, one.n) for one in made.bins],
            },
        )
