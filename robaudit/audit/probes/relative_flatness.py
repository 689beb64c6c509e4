"""Relative flatness of the last linear layer."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from robaudit.audit.names import authors
from robaudit.audit.probes.pgd import AtPgdExamples
from robaudit.audit.sharpness import at_adversarial_and_clean
from robaudit.measures import measure
from robaudit.schema import Measurement

if TYPE_CHECKING:
    from robaudit.audit.context import Context


@dataclass(frozen=True)
class RelativeFlatness(AtPgdExamples):
    """Relative flatness of the last linear layer, at PGD examples and at clean images."""

    name = "relative_flatness"
    measures = (
        measure(
            "sharpness.relative_flatness",
            "Relative flatness",
            place=30,
            unit="",
            low=0.0,
            heading="Relative\nflatness",
            of_one_architecture=True,
            study="relative flatness",
            formula="`sum_{s,s'} <w_s, w_s'> Tr(H_{s,s'})` over the rows of the last linear layer, "
            "at the `x'`; by its closed form `mean ‖z'‖² sum_t Var_{c ~ p'}(W_ct)`",
            error="s.e. over examples, normal interval",
        ),
        measure(
            "sharpness.clean_relative_flatness",
            "Relative flatness, clean images",
            basis="clean",
            place=35,
            unit="",
            low=0.0,
            of_one_architecture=True,
            ruled=False,
            study="relative flatness (clean)",
            formula="`sharpness.relative_flatness` at clean images",
            error="as of `sharpness.relative_flatness`",
        ),
    )

    def price(self, n: int, n_train: int) -> int:
        return 2 * n

    def run(self, context: Context) -> list[Measurement]:
        from robaudit import curvature

        own = authors(context.model)
        return at_adversarial_and_clean(
            context,
            self.pgd,
            ("sharpness.relative_flatness", "sharpness.clean_relative_flatness"),
            lambda x, _: curvature.relative_flatness(context.model, x),
            settings={"pgd": asdict(self.pgd)},
            details=lambda found: {"layer": own(found.layer)},
        )
