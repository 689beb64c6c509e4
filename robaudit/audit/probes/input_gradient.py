"""The norm of the loss's gradient in the image, on clean images and on PGD examples."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from robaudit.audit.input_space import clean_and_adversarial
from robaudit.audit.numbers import average
from robaudit.audit.probe import GRADIENT
from robaudit.audit.probes.pgd import AtPgdExamples
from robaudit.measures import measure
from robaudit.schema import Measurement

if TYPE_CHECKING:
    from robaudit.audit.context import Context


@dataclass(frozen=True)
class InputGradient(AtPgdExamples):
    """The mean dual norm of the gradient of the cross-entropy in the image."""

    name = "input_gradient"
    measures = (
        measure(
            "gradient.norm",
            "Input-gradient norm",
            place=210,
            low=0.0,
            better="lower",
            study="input gradient",
            formula="mean of `‖grad_x CE(f(x), y)‖_*`, in nats per unit of the norm; the dual norm "
            "is l1 for linf, l2 for l2, linf for l1",
        ),
        measure(
            "gradient.adversarial_norm",
            "Input-gradient norm, adversarial",
            place=211,
            low=0.0,
            better="lower",
            study="input gradient (adversarial)",
            formula="`gradient.norm` at the `x'`",
        ),
    )

    def price(self, n: int, n_train: int) -> int:
        return 2 * n * GRADIENT

    def run(self, context: Context) -> list[Measurement]:
        from robaudit.attacks import input_gradient_norm
        from robaudit.engine import frozen

        split, threat = context.main, context.threat
        found = []
        for prefix, images in clean_and_adversarial(context, self.pgd):
            with frozen(context.model):
                norms = input_gradient_norm(
                    context.runner(), images, context.splits[split].y, threat
                )
            name = f"gradient.{prefix}norm"
            context.keep(split, name, norms)
            settings = {"norm": threat.norm, **({"pgd": asdict(self.pgd)} if prefix else {})}
            found.append(average(name, split, norms, settings=settings))
        return found
