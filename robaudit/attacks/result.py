"""What every attack returns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from robaudit.attacks.diagnostics import Diagnostics
from robaudit.brief import brief
from robaudit.engine import Precision

# Values of `broken_by` for examples that no attack broke.
STANDS, WRONG = -2, -1


@dataclass(frozen=True)
class AttackResult:
    """Adversarial examples and their outcomes, on the CPU.

    The first six fields come from every attack; the others are ``None`` or empty where the attack
    does not determine them.

    Attributes:
        x: ``(n, c, h, w)`` adversarial examples: the iterate with the highest objective, or where
            an attack stops at the first misclassified iterate, that one.
        loss: ``(n,)`` the highest cross-entropy over the clean image and all iterates, in nats;
            ``nan`` where the attack does not maximise cross-entropy.
        robust: ``(n,)`` bool; classified correctly at the clean image and at every iterate.
        correct: ``(n,)`` bool; classified correctly at the clean image.
        forwards, backwards: forward and backward passes, counted in images.
        broken_x: ``(n, c, h, w)`` for examples that are not robust, the misclassified iterate with
            the highest objective (``x`` need not be misclassified); elsewhere ``x``. From PGD.
        stuck: ``(n,)`` bool; robust, and no iterate had a higher objective than the point where its
            restart began. From PGD and APGD.
        reached: ``(n,)`` the highest objective. From PGD and APGD; an ensemble gives that of its
            first attack, infinite where it did not run.
        zero_gradient: ``(n,)`` bool; the gradient was zero in every pixel at a starting point.
            From APGD.
        nearest: ``(n, c, h, w)`` the nearest misclassified point found; the image itself where
            there is none, or where it is misclassified itself. From FAB.
        distance: ``(n,)`` distance from the image to the nearest misclassified point found, in the
            threat model's norm: 0 where the image is misclassified, infinite where no point was
            found. From FAB, and from ensembles that run it (there FAB stops early).
        accuracies: robust accuracy after each attack of an ensemble, in the order they ran.
        broken_by: ``(n,)`` position in ``accuracies`` of the attack that broke the example;
            ``WRONG`` (-1) where the clean image is misclassified, ``STANDS`` (-2) where the example
            is robust. From ensembles.
        passes: forward and backward passes of each attack of an ensemble, in images.
        diagnostics: whether the gradients can be trusted. From ensembles.
        notes: warnings, and attacks that were left out or changed. From ensembles.
        searched: the arithmetic of the search, from PGD; the other fields are float32's.
    """

    x: Tensor
    loss: Tensor
    robust: Tensor
    correct: Tensor
    forwards: int
    backwards: int
    broken_x: Tensor | None = None
    stuck: Tensor | None = None
    reached: Tensor | None = None
    zero_gradient: Tensor | None = None
    nearest: Tensor | None = None
    distance: Tensor | None = None
    accuracies: Mapping[str, float] = field(default_factory=dict)
    broken_by: Tensor | None = None
    passes: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    diagnostics: Diagnostics | None = None
    notes: tuple[str, ...] = ()
    searched: Precision = "fp32"

    __repr__ = brief


def known(values: Tensor | None) -> Tensor:
    """An optional field of a result, where the attack is one that determines it."""
    assert values is not None
    return values
