"""Gradient alignment, around clean images and around PGD examples."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from robaudit.audit.input_space import clean_and_adversarial
from robaudit.audit.numbers import average
from robaudit.audit.probe import GRADIENT
from robaudit.audit.probes.pgd import AtPgdExamples
from robaudit.errors import NotMeasuredError
from robaudit.measures import measure
from robaudit.schema import Measurement

if TYPE_CHECKING:
    from robaudit.audit.context import Context


@dataclass(frozen=True)
class Alignment(AtPgdExamples):
    """The cosine between the loss's gradients at an image and at a random point of its ball."""

    name = "alignment"
    measures = (
        measure(
            "gradient.alignment",
            "Gradient alignment",
            place=220,
            low=-1.0,
            high=1.0,
            better="higher",
            study="gradient alignment",
            formula="mean of `cos(grad l(x), grad l(x + d))`, `l` the cross-entropy and `d` one "
            "random point of the ball for each example, clipped to the box",
        ),
        measure(
            "gradient.adversarial_alignment",
            "Gradient alignment, adversarial",
            place=221,
            low=-1.0,
            high=1.0,
            better="higher",
            study="gradient alignment (adversarial)",
            formula="`gradient.alignment` around the `x'`",
        ),
    )

    def price(self, n: int, n_train: int) -> int:
        return 4 * n * GRADIENT

    def run(self, context: Context) -> list[Measurement]:
        from robaudit.attacks import gradient_alignment
        from robaudit.engine import frozen

        split, threat = context.main, context.threat
        examples = context.splits[split]
        found = []
        for prefix, images in clean_and_adversarial(context, self.pgd):
            with frozen(context.model):
                cosines = gradient_alignment(
                    context.runner(),
                    images,
                    examples.y,
                    threat,
                    seed=context.seed,
                    index=examples.index,
                )
            name = f"gradient.{prefix}alignment"
            context.keep(split, name, cosines)
            known = cosines[~cosines.isnan()]
            if len(known) == 0:
                raise NotMeasuredError("the gradient is zero at every image or near it")
            lost = len(cosines) - len(known)
            warnings = [f"{lost} images with a gradient of zero are left out"] if lost else []
            settings = {"pgd": asdict(self.pgd)} if prefix else {}
            found.append(average(name, split, known, settings=settings, warnings=warnings))
        return found
