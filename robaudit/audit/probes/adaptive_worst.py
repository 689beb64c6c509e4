"""Worst-case adaptive sharpness."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from robaudit.audit.probe import GRADIENT
from robaudit.audit.probes.pgd import AtPgdExamples
from robaudit.audit.sharpness import at_adversarial_and_clean
from robaudit.errors import UsageError
from robaudit.measures import measure
from robaudit.schema import Measurement

if TYPE_CHECKING:
    from robaudit.audit.context import Context


@dataclass(frozen=True)
class AdaptiveWorst(AtPgdExamples):
    """Worst-case adaptive sharpness, at PGD examples, held fixed, and at clean images.

    Attributes:
        norm: of the perturbation relative to each weight.
        rho: its radius.
        m: most examples that share a perturbation.
        steps: of the search.
        normalize_logits: measure the loss of logits of mean zero and length one.
    """

    name = "adaptive_worst"
    measures = (
        measure(
            "sharpness.adaptive_worst",
            "Adaptive sharpness, worst case",
            place=10,
            unit="nats",
            low=0.0,
            heading="Sharpn.\nworst",
            of_one_architecture=True,
            study="worst sharpness",
            formula="mean over groups of at most `m` examples of the highest rise of the mean loss "
            "at the `x'` over `‖d / abs(w)‖_p <= rho`, elementwise, all parameters; by Auto-PGD, a "
            "lower bound; logits of mean zero and length one by default",
            error="s.e. over examples at the worst weights found; Student's t interval, examples "
            "less one",
        ),
        measure(
            "sharpness.clean_adaptive_worst",
            "Adaptive sharpness, worst case, clean images",
            basis="clean",
            place=15,
            unit="nats",
            low=0.0,
            of_one_architecture=True,
            ruled=False,
            study="worst sharpness (clean)",
            formula="`sharpness.adaptive_worst` at clean images",
            error="as of `sharpness.adaptive_worst`",
        ),
    )

    norm: Literal["linf", "l2"] = "linf"
    rho: float = 0.002
    m: int = 128
    steps: int = 20
    normalize_logits: bool = True

    def __post_init__(self) -> None:
        if not 0 < self.rho < float("inf"):
            raise UsageError(f"rho must be a positive number, not {self.rho:g}")
        if self.m < 1 or self.steps < 1:
            raise UsageError("the search needs at least one step and one example a group")

    def price(self, n: int, n_train: int) -> int:
        return 2 * n * (self.steps * GRADIENT + 1)

    def run(self, context: Context) -> list[Measurement]:
        from robaudit import flatness

        def measured(x: Any, progress: Any) -> Any:
            return flatness.adaptive_worst(
                context.model,
                x,
                context.y(context.main, len(x)),
                norm=self.norm,
                rho=self.rho,
                m=self.m,
                steps=self.steps,
                normalize_logits=self.normalize_logits,
                progress=progress,
            )

        def details(found: Any) -> dict[str, Any]:
            return {"reference": found.reference, "groups": list(found.groups)}

        return at_adversarial_and_clean(
            context,
            self.pgd,
            ("sharpness.adaptive_worst", "sharpness.clean_adaptive_worst"),
            measured,
            settings=asdict(self),
            details=details,
            unit="nats",
            degrees=lambda found: found.n - 1,
        )
