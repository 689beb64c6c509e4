"""Accuracy on adversarial examples that were made on another network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from robaudit.audit.numbers import accuracy, passes
from robaudit.audit.probe import Attack
from robaudit.audit.probes.pgd import Pgd
from robaudit.measures import measure
from robaudit.schema import Measurement

if TYPE_CHECKING:
    from torch import Tensor

    from robaudit.audit.context import Context
    from robaudit.types import ThreatModel


@dataclass(frozen=True)
class Transfer(Attack):
    """PGD examples of a surrogate network, judged on the audited one.

    Attributes:
        surrogate: what it is called; the network itself is given to the audit.
    """

    name = "transfer"
    measures = (
        measure(
            "accuracy.transfer",
            "Accuracy on {attack}",
            place=70,
            attack="transferred images",
            ruled=False,
            formula="share correct at `x` and at an adversarial image that was made elsewhere",
        ),
    )

    pgd: Pgd
    surrogate: str

    def described(self, threat: ThreatModel) -> dict[str, Any]:
        return {**self.pgd.described(threat), "surrogate": self.surrogate}

    def run(self, context: Context) -> list[Measurement]:
        attacked = context.transferred(self.pgd)
        details = {
            **passes(attacked),
            "surrogate_broken": int((~attacked.robust).sum()),
            "searched_in": attacked.searched,
        }
        return [judged(context, attacked.x, self.described(context.threat), details)]


def judged(
    context: Context, x_adv: Tensor, settings: dict[str, Any], details: dict[str, Any]
) -> Measurement:
    """Accuracy on adversarial images that were made elsewhere.

    Args:
        x_adv: ``(n, c, h, w)`` one for each audited example; those that leave the threat model's
            ball or the box do not count.
        details: of the measurement, beside how many of the images are in ball and box.
    """
    from robaudit.attacks.verification import verify

    examples = context.splits[context.main]
    found = verify(context.model, examples.x, x_adv, examples.y, context.threat)
    robust = context.outcomes[f"{context.main}.accuracy.clean"] & ~found.breaks
    context.keep(context.main, "accuracy.transfer", robust)
    context.broken["transfer"] = x_adv, found.breaks
    held = {"in_ball": int(found.in_ball.sum()), "in_box": int(found.in_box.sum())}
    return accuracy(
        "accuracy.transfer", context.main, robust, settings=settings, details={**details, **held}
    )
