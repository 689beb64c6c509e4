"""The product of the layers' spectral norms."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from robaudit.audit.names import authors
from robaudit.audit.numbers import finite
from robaudit.audit.probe import Probe
from robaudit.measures import measure
from robaudit.schema import Measurement

if TYPE_CHECKING:
    from robaudit.audit.context import Context


@dataclass(frozen=True)
class SpectralNorms(Probe):
    """The logarithm of the product of the layers' spectral norms."""

    name = "spectral_norms"
    measures = (
        measure(
            "sharpness.spectral_norms",
            "Product of spectral norms, logarithm",
            basis="clean",
            place=60,
            unit="",
            error_bar="exact",
            any_threat=True,
            heading="Spectral\nnorms, ln",
            of_one_architecture=True,
            study="spectral norms (log)",
            formula="`sum_k ln ‖A_k‖_2`, `A_k` the operator of layer `k` on its actual input, "
            "batch norms folded",
            error="exact; `details.error` bounds the relative error of the product, by Lanczos",
        ),
    )

    def price(self, n: int, n_train: int) -> int:
        # Lanczos: about a hundred products with each convolution, forwards and back.
        return 300

    def run(self, context: Context) -> list[Measurement]:
        from robaudit import norms

        with context.watch("spectral norms of the layers"):
            found = norms.spectral_norms(context.model, context.splits[context.main].x[:2])
        own = authors(context.model)
        return [
            Measurement(
                name="sharpness.spectral_norms",
                split=context.main,
                value=found.log,
                unit="",
                details={
                    "product": finite(found.product),
                    "error": found.error,
                    "folded": found.folded,
                    "layers": [
                        {"name": own(name), "norm": norm} for name, norm in found.layers.items()
                    ],
                },
            )
        ]
