"""Accuracy and loss on clean images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from robaudit.audit.numbers import accuracy, loss
from robaudit.audit.probe import Attack
from robaudit.datasets import is_corrupted
from robaudit.measures import measure
from robaudit.schema import Measurement

if TYPE_CHECKING:
    from robaudit.audit.context import Context
    from robaudit.types import Examples


@dataclass(frozen=True)
class Clean(Attack):
    """Accuracy and loss on the clean images of every split; in every audit, and always first.

    An attack of no perturbation: the one with which a gate begins.
    """

    name = "clean"
    measures = (
        measure(
            "accuracy.clean",
            "Clean accuracy",
            basis="clean",
            place=10,
            any_threat=True,
            stages=("clean",),
            passes=1,
            heading="Clean\nacc. %",
            formula="share of examples with `argmax f(x) = y`",
        ),
        measure(
            "loss.clean",
            "Clean loss",
            basis="clean",
            place=10,
            any_threat=True,
            formula="mean of `CE(f(x), y)`",
        ),
    )

    def price(self, n: int, n_train: int) -> int:
        return n + n_train

    def run(self, context: Context) -> list[Measurement]:
        from robaudit.attacks.objectives import cross_entropy
        from robaudit.engine import frozen

        found = []
        for split, examples in context.splits.items():
            if is_corrupted(examples.name):
                context.keep(split, "index", examples.index)
                context.keep(split, "label", examples.y)
                found.append(_skipped(examples))
                continue
            with frozen(context.model):
                logits = context.runner().logits(examples.x).cpu()
            right = logits.argmax(1) == examples.y
            losses = cross_entropy(logits, examples.y)
            context.keep(split, "index", examples.index)
            context.keep(split, "label", examples.y)
            if (groups := context.groups(split, len(examples))) is not None:
                context.keep(split, "group", groups)
            context.keep(split, "accuracy.clean", right)
            context.keep(split, "loss.clean", losses)
            found += [accuracy("accuracy.clean", split, right), loss("loss.clean", split, losses)]
        return found


def _skipped(examples: Examples) -> Measurement:
    return Measurement(
        name="accuracy.clean",
        split=examples.split,
        status="skipped",
        reason=f"the images of {examples.name} are corrupted, and clean ones are not at hand",
    )
