"""Trace of a training loss's Hessian in the last layer."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from robaudit.audit.names import authors
from robaudit.audit.numbers import estimate
from robaudit.audit.probe import Probe
from robaudit.audit.probes.pgd import Pgd
from robaudit.errors import NotMeasuredError
from robaudit.measures import measure
from robaudit.schema import Measurement
from robaudit.types import TrainingLoss

if TYPE_CHECKING:
    from robaudit.audit.context import Context


@dataclass(frozen=True)
class TopLayer(Probe):
    """Trace of a training loss's Hessian in the last layer, at PGD examples.

    Skipped where the network does not end in a linear layer.
    """

    name = "top_layer"
    measures = (
        measure(
            "trh.top_layer",
            "Top-layer Hessian trace, {objective}",
            place=90,
            study="top-layer TrH",
            formula="trace of the Hessian of a training loss in the last linear layer's weight; "
            "for adversarial training `‖z'‖² 1ᵀ(p' - p'²)`, `z'` the features and `p'` the "
            "softmax at `x'`",
        ),
    )

    pgd: Pgd
    objective: TrainingLoss = "at"
    penalty: float | None = None

    def price(self, n: int, n_train: int) -> int:
        return n

    def shared(self, n: int, n_train: int) -> dict[Pgd, int]:
        return {self.pgd: n}

    def run(self, context: Context) -> list[Measurement]:
        from robaudit import curvature

        split = context.main
        attacked = context.adversarial(split, self.pgd)
        n = len(attacked.x)
        try:
            found = curvature.top_layer_trh(
                context.model,
                context.splits[split].x[:n],
                attacked.x,
                context.y(split, n),
                self.objective,
                penalty=self.penalty,
            )
        except NotMeasuredError as error:
            return [
                Measurement(
                    name="trh.top_layer", split=split, status="skipped", reason=error.message
                )
            ]
        context.keep(split, "trh.top_layer", found.per_example)
        return [
            estimate(
                "trh.top_layer",
                split,
                found.value,
                found.standard_error,
                n=n,
                details={"terms": found.terms, "layer": authors(context.model)(found.layer)},
                settings={
                    "pgd": asdict(self.pgd),
                    "objective": found.objective,
                    "penalty": found.penalty,
                },
            )
        ]
