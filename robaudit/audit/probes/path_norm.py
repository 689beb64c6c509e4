"""The path norm."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from robaudit.audit.numbers import finite
from robaudit.audit.probe import Probe
from robaudit.measures import measure
from robaudit.schema import Measurement

if TYPE_CHECKING:
    from robaudit.audit.context import Context


@dataclass(frozen=True)
class PathNorm(Probe):
    """The logarithm of the path norm; of networks for which paths are defined."""

    name = "path_norm"
    measures = (
        measure(
            "sharpness.path_norm",
            "Path norm, logarithm",
            basis="clean",
            place=50,
            unit="",
            error_bar="exact",
            any_threat=True,
            heading="Path\nnorm, ln",
            of_one_architecture=True,
            study="path norm (log)",
            formula="`ln sqrt(sum over paths of the product of squared weights)`, from pixels and "
            "biases to logits, batch norms folded",
            error="exact",
        ),
    )

    def price(self, n: int, n_train: int) -> int:
        return 2

    def run(self, context: Context) -> list[Measurement]:
        from robaudit import norms

        found = norms.path_norm(context.model, context.splits[context.main].x[:2])
        return [
            Measurement(
                name="sharpness.path_norm",
                split=context.main,
                value=found.log,
                unit="",
                details={"norm": finite(found.value), "folded": found.folded},
            )
        ]
