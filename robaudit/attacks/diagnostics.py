"""Counts of examples by which to judge the gradients that an attack used."""

from __future__ import annotations

from dataclasses import astuple, dataclass, replace

# Attacks of an ensemble that use no gradients.
BLACK_BOX = ("square",)


@dataclass(frozen=True)
class Diagnostics:
    """Counts of examples that show whether the gradients can be trusted.

    Attributes:
        attacked: correctly classified when clean.
        zero_gradient: had a gradient that was zero in every pixel where the first attack started.
        stuck: robust, and the first attack never raised the loss above its starting points.
        black_box_only: broken from logits alone, after all attacks with gradients had failed.
        targets_missing: targets of targeted attacks for which there were no classes.
        probed: robust examples on which a short search without gradients was run.
        blindly_ahead: of those, where that search reached a higher objective than the attack.
        blindly_broken: of those, broken by that search.
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
        """The counts of two disjoint sets of examples under the same attack, added."""
        both = zip(astuple(self), astuple(other), strict=True)
        added = Diagnostics(*(one + more for one, more in both))
        missing = max(self.targets_missing, other.targets_missing)
        return replace(added, targets_missing=missing)
