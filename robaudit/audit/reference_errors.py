"""Errors of reference models under corruptions, which mean corruption errors are relative to."""

from __future__ import annotations

from dataclasses import dataclass

from robaudit.datasets import CORRUPTIONS, SEVERITIES


@dataclass(frozen=True)
class ReferenceErrors:
    """Errors of a reference model under corruptions, as fractions.

    Attributes:
        name: of the model.
        errors: for each corruption its name and errors: one number, the mean over all severities,
            or five, one for each.
    """

    name: str
    errors: tuple[tuple[str, tuple[float, ...]], ...]

    def means(
        self, corruptions: tuple[str, ...], severities: tuple[int, ...]
    ) -> tuple[float, ...] | str:
        """The error under each corruption, as a mean over severities; or why there is none."""
        known = dict(self.errors)
        if lacking := [name for name in corruptions if name not in known]:
            return f"{self.name} has no error for {', '.join(lacking)}"
        if severities == SEVERITIES:
            return tuple(sum(known[name]) / len(known[name]) for name in corruptions)
        if any(len(known[name]) == 1 for name in corruptions):
            return f"the errors of {self.name} are means over all five severities"
        return tuple(sum(known[name][s - 1] for s in severities) / len(severities)
                     for name in corruptions)  # fmt: skip


# Top-1 errors of AlexNet on ImageNet-C, means over the five severities, of
# github.com/hendrycks/robustness as github.com/google-research/augmix (imagenet.py) quotes them.
# The errors for each severity that others quote have these means, to all six digits.
_ALEXNET = (
    *(0.886428, 0.894468, 0.922640),
    *(0.819880, 0.826268, 0.785948, 0.798360),
    *(0.866816, 0.826572, 0.819324, 0.564592),
    *(0.853204, 0.646056, 0.717840, 0.606500),
)
ALEXNET = ReferenceErrors(
    "AlexNet", tuple((name, (error,)) for name, error in zip(CORRUPTIONS, _ALEXNET, strict=True))
)
