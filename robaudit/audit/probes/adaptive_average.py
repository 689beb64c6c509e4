"""Average-case adaptive sharpness."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from robaudit.audit.numbers import finite
from robaudit.audit.probes.pgd import AtPgdExamples
from robaudit.audit.sharpness import at_adversarial_and_clean
from robaudit.errors import UsageError
from robaudit.measures import measure
from robaudit.schema import Measurement

if TYPE_CHECKING:
    from robaudit.audit.context import Context


@dataclass(frozen=True)
class AdaptiveAverage(AtPgdExamples):
    """Average-case adaptive sharpness, at PGD examples, held fixed, and at clean images.

    Attributes:
        norm: of the perturbation relative to each weight.
        rho: its radius, or the size of a draw.
        perturbations: draws.
        normalize_logits: measure the loss of logits of mean zero and length one.
    """

    name = "adaptive_average"
    measures = (
        measure(
            "sharpness.adaptive_average",
            "Adaptive sharpness, average case",
            place=20,
            unit="nats",
            heading="Sharpn.\naverage",
            of_one_architecture=True,
            study="avg. sharpness",
            formula="mean rise of the mean loss at the `x'` where every parameter `w` moves by "
            "`rho abs(w) g`, `g` standard normal; logits of mean zero and length one by default",
            error="s.e. over examples and over draws, added in squares; Student's t interval, its "
            "degrees the draws less one (examples less one where they are fewer)",
        ),
        measure(
            "sharpness.clean_adaptive_average",
            "Adaptive sharpness, average case, clean images",
            basis="clean",
            place=25,
            unit="nats",
            of_one_architecture=True,
            ruled=False,
            study="avg. sharpness (clean)",
            formula="`sharpness.adaptive_average` at clean images, at the same draws",
            error="as of `sharpness.adaptive_average`",
        ),
    )

    norm: Literal["linf", "l2"] = "l2"
    rho: float = 0.1
    perturbations: int = 20
    normalize_logits: bool = True

    def __post_init__(self) -> None:
        if not 0 < self.rho < float("inf"):
            raise UsageError(f"rho must be a positive number, not {self.rho:g}")
        if self.perturbations < 1:
            raise UsageError("the average needs at least one draw")

    def price(self, n: int, n_train: int) -> int:
        return 2 * n * (self.perturbations + 1)

    def run(self, context: Context) -> list[Measurement]:
        from robaudit import flatness

        def measured(x: Any, progress: Any) -> Any:
            return flatness.adaptive_average(
                context.model,
                x,
                context.y(context.main, len(x)),
                norm=self.norm,
                rho=self.rho,
                perturbations=self.perturbations,
                normalize_logits=self.normalize_logits,
                seed=context.seed,
                batch_size=context.batch_size,
                progress=progress,
            )

        def details(found: Any) -> dict[str, Any]:
            return {
                "reference": found.reference,
                "perturbed": list(found.perturbed),
                "standard_error_examples": finite(found.standard_error_examples),
                "standard_error_perturbations": finite(found.standard_error_perturbations),
            }

        return at_adversarial_and_clean(
            context,
            self.pgd,
            ("sharpness.adaptive_average", "sharpness.clean_adaptive_average"),
            measured,
            settings=asdict(self),
            details=details,
            unit="nats",
            degrees=lambda found: min(found.n, len(found.perturbed)) - 1,
        )
