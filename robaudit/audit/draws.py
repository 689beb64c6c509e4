"""Networks that draw at random, or whose modules gradients go straight through."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from robaudit.audit.context import Context
from robaudit.engine import straight_through, voted
from robaudit.engine.voting import SINGLE_DRAWS
from robaudit.measures import find
from robaudit.schema import Measurement
from robaudit.types import Examples

# Sections whose measures are of the classifier that a random network's draws vote for.
_VOTED_ON = ("Accuracy", "Loss", "Calibration", "Generalisation")
_FEW = 64


def network_of(
    model: nn.Module,
    examples: Examples,
    samples: int | None,
    seed: int,
    straight: Sequence[str] = (),
) -> nn.Module:
    """The model to attack: the vote of a random network's draws, with straight-through gradients.

    Raises:
        UsageError: it has no module of a name in ``straight``.
    """
    return voted(straight_through(model, straight), examples.x[:_FEW], samples, seed)


def refusal(context: Context, names: Sequence[str]) -> str | None:
    """Why measurements of such a network would be misleading; ``None`` if they are not."""
    if all(map(_of_attacks, names)):
        return None
    if context.samples is not None:
        return f"{SINGLE_DRAWS}; measure it with its noise switched off"
    if context.straightened:
        return (
            "gradients go straight through "
            f"{', '.join(context.straightened)}: curvature and flatness would be of another "
            "network; measure them without --straight-through"
        )
    return None


def described(context: Context, measurements: list[Measurement]) -> list[Measurement]:
    """The measurements with draws and straight-through modules added to their settings."""
    if not context.described:
        return measurements
    drawn = {} if context.samples is None else {"samples": context.samples}
    return [
        m.model_copy(update={"settings": {**m.settings, **of}})
        if _of_attacks(m.name)
        and (of := context.described if find(m.name).basis == "attacks" else drawn)
        else m
        for m in measurements
    ]


def _of_attacks(name: str) -> bool:
    return find(name).section in _VOTED_ON
