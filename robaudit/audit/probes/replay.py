"""Accuracy on adversarial examples from a file."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from robaudit.audit.probe import Attack
from robaudit.audit.probes.transfer import Transfer, judged
from robaudit.schema import Measurement

if TYPE_CHECKING:
    from robaudit.audit.context import Context


@dataclass(frozen=True)
class Replay(Attack):
    """Adversarial examples from a file, each judged again on the audited network.

    Attributes:
        file: what it is called; its examples are given to the audit.
    """

    name = "replay"
    measures = Transfer.measures

    file: str

    def run(self, context: Context) -> list[Measurement]:
        found = context.replayed
        assert found is not None
        made = judged(context, found.x, {**asdict(self), "made_by": found.made_by}, {})
        breaks = context.broken["transfer"][1]
        unconfirmed = int((found.broken & ~breaks).sum())
        details = {
            **made.details,
            "claimed": int(found.broken.sum()),
            "confirmed": int((found.broken & breaks).sum()),
            "made_on": found.made_on,
        }
        warnings = []
        if unconfirmed:
            warnings.append(
                f"{unconfirmed} of {details['claimed']} images that broke the network they were "
                "made on do not break this one, or leave the ball or the box"
            )
        return [made.model_copy(update={"details": details, "warnings": warnings})]
