"""What an attack tells of the gradients that it used."""

from __future__ import annotations

from dataclasses import astuple, dataclass, replace

# Attacks of an ensemble that use no gradients.
BLACK_BOX = ("square",)


@dataclass(frozen=True)
class Diagnostics:
    """Counts of examples that tell whether the gradients can be trusted.

    Attributes:
        attacked: correctly classified when clean.
        zero_gradient: had a gradient that was zero in every pixel where the first attack started.
        stuck: stood, and the first attack never raised the loss above its starting points.
        black_box_only: broken from logits alone, after all attacks with gradients had failed.
        targets_missing: targets that targeted attacks asked for and that there were no classes for.
        probed: standing examples that a short search without gradients looked at.
        blindly_ahead: of those, taken further by it than by the attack.
        blindly_broken: of those, broken by it.
    """

    attacked: int
    zero_gradient: int
    stuck: int
    black_box_only: int
    targets_missing: int
    probed: int = 0
    blindly_ahead: int = 0
    blindly_broken: int = 0

    def __add__(self, other: Diagnostics) -> Diagnostics:
        """Of these examples and of others under the same attack."""
        both = zip(astuple(self), astuple(other), strict=True)
        added = Diagnostics(*(one + more for one, more in both))
        missing = max(self.targets_missing, other.targets_missing)
        return replace(added, targets_missing=missing)
