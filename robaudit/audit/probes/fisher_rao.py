"""The Fisher-Rao norm."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from robaudit.audit.probes.pgd import AtPgdExamples
from robaudit.audit.sharpness import at_adversarial_and_clean
from robaudit.measures import measure
from robaudit.schema import Measurement

if TYPE_CHECKING:
    from robaudit.audit.context import Context

# Passes of one example: forward, the slope along the weights, and its derivative.
_PASSES = 5


@dataclass(frozen=True)
class FisherRao(AtPgdExamples):
    """The Fisher-Rao norm of all parameters, at PGD examples and at clean images."""

    name = "fisher_rao"
    measures = (
        measure(
            "sharpness.fisher_rao",
            "Fisher-Rao norm",
            place=40,
            unit="",
            low=0.0,
            heading="Fisher-\nRao",
            of_one_architecture=True,
            study="Fisher-Rao norm",
            formula="`sqrt(<w, F w>)`, `F` the Fisher information of all parameters with labels "
            "from the network's own softmax: `<w, F w> = mean Var_{c ~ p'}((J w)_c)`, `J` the "
            "Jacobian of the logits at the `x'`",
            error="s.e. over examples by the delta method, normal interval",
        ),
        measure(
            "sharpness.clean_fisher_rao",
            "Fisher-Rao norm, clean images",
            basis="clean",
            place=45,
            unit="",
            low=0.0,
            of_one_architecture=True,
            ruled=False,
            study="Fisher-Rao norm (clean)",
            formula="`sharpness.fisher_rao` at clean images",
            error="as of `sharpness.fisher_rao`",
        ),
    )

    def price(self, n: int, n_train: int) -> int:
        return 2 * n * _PASSES

    def run(self, context: Context) -> list[Measurement]:
        from robaudit import curvature

        return at_adversarial_and_clean(
            context,
            self.pgd,
            ("sharpness.fisher_rao", "sharpness.clean_fisher_rao"),
            lambda x, _: curvature.fisher_rao(context.model, x),
            settings={"pgd": asdict(self.pgd)},
        )
