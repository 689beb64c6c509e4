"""Attacks within several norms: which examples withstand all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from robaudit import attacks
from robaudit.attacks.diagnostics import Diagnostics
from robaudit.attacks.verification import verify
from robaudit.audit.context import Context
from robaudit.audit.ensembles import confirmed
from robaudit.audit.probes.fast import Fast
from robaudit.schema import Measurement
from robaudit.types import ThreatModel, radius


@dataclass(frozen=True)
class FastTier:
    """What the fast tier found on some of the audited examples within a threat model.

    Attributes:
        broken: ``(n,)`` bool, of all audited examples; confirmed by the network itself in float32,
            inside the ball and the box.
        images: adversarial images of those that are broken, in the order of the examples.
        measurement: of the examples attacked, with diagnostics, doubts and warnings.
    """

    broken: Tensor
    images: Tensor
    measurement: Measurement

    @property
    def diagnostics(self) -> Diagnostics | None:
        """What the attacks told of their gradients; ``None`` where nothing was attacked."""
        seen = self.measurement.details.get("diagnostics")
        return None if seen is None else Diagnostics(**seen)


@dataclass(frozen=True)
class InNorm:
    """What attacks within one threat model broke; every field is ``(n,)`` bool.

    Attributes:
        tried: correctly classified, and not broken before within another norm's ball.
        before: of these, broken by images that earlier attacks of the audit had made.
        broken: of these, broken at all.
        found: by the fast tier; ``None`` where nothing was left to attack.
        reused: the earlier attacks whose images or whose verdicts were taken over.
    """

    threat: ThreatModel
    tried: Tensor
    before: Tensor
    broken: Tensor
    found: FastTier | None
    reused: tuple[str, ...]


def by_fast(context: Context, threat: ThreatModel, mask: Tensor) -> FastTier | None:
    """The fast tier within ``threat`` on the examples of ``mask``, all correctly classified.

    Returns: ``None`` for no example.
    """
    rows = torch.nonzero(mask)[:, 0]
    if len(rows) == 0:
        return None
    part = context.part(rows, threat)
    label = f"fast tier within {threat.norm} {radius(threat.eps)}"
    (found,) = confirmed(part, Fast(), label, lambda run: run.by(attacks.fast))
    images, counts = part.broken[Fast.name]
    broken = torch.zeros_like(mask)
    broken[rows[counts]] = True
    return FastTier(broken, images[counts], found)


def in_every_norm(context: Context, threats: Sequence[ThreatModel], each: bool) -> list[InNorm]:
    """Attack the audited examples within each threat model.

    Which examples withstand all of them does not depend on the order, as an example's result does
    not depend on which others are attacked with it.

    Args:
        each: attack every correctly classified example in every norm; else what one norm broke is
            not attacked in the next.
    """
    left = context.outcomes[f"{context.main}.accuracy.clean"].clone()
    correct = left.clone()
    found = []
    for threat in threats:
        tried = correct if each else left.clone()
        before, reused = _broken_before(context, threat, tried)
        todo = tried & ~before
        for name in _same_attack(context, threat):
            todo &= ~context.outcomes[f"{context.main}.accuracy.{name}"]
            reused = (*reused, *({name} - set(reused)))
        made = by_fast(context, threat, todo)
        broken = before if made is None else before | made.broken
        left &= ~broken
        found.append(InNorm(threat, tried, before, broken, made, reused))
    return found


def _broken_before(
    context: Context, threat: ThreatModel, tried: Tensor
) -> tuple[Tensor, tuple[str, ...]]:
    """Which of the examples images of the audit's earlier attacks break within this ball."""
    examples = context.splits[context.main]
    broken, by = torch.zeros_like(tried), []
    if threat.norm != context.threat.norm:
        return broken, ()
    for name, (images, counts) in context.broken.items():
        rows = torch.nonzero(tried & counts & ~broken)[:, 0]
        if len(rows) == 0:
            continue
        judged = verify(context.model, examples.x[rows], images[rows], examples.y[rows], threat)
        broken[rows[judged.breaks]] = True
        if bool(judged.breaks.any()):
            by.append(name)
    return broken, tuple(by)


def _same_attack(context: Context, threat: ThreatModel) -> list[str]:
    """The attacks that tried this very ball already, and are the fast tier or stronger."""
    if threat != context.threat:
        return []
    strong = ("fast", "autoattack") if context.samples is None else ("fast",)
    return [name for name in strong if f"{context.main}.accuracy.{name}" in context.outcomes]
