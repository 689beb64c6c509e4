"""What an attack returns."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from robaudit.brief import brief


@dataclass(frozen=True)
class Attacked:
    """Adversarial examples and what they did, per example, on the CPU.

    Attributes:
        x: ``(n, c, h, w)`` the iterate with the highest objective; in accuracy mode, the first one
            that was misclassified.
        loss: ``(n,)`` cross-entropy at the worst iterate met: the robust loss of each example
            (``nan`` where the attack does not maximise cross-entropy).
        robust: ``(n,)`` bool; correctly classified at the clean image and at every iterate met.
        correct: ``(n,)`` bool; correctly classified at the clean image.
        forwards, backwards: passes spent, in images.
    """

    x: Tensor
    loss: Tensor
    robust: Tensor
    correct: Tensor
    forwards: int
    backwards: int

    __repr__ = brief


@dataclass(frozen=True)
class Ascended(Attacked):
    """An :class:`Attacked` that went on after it had broken an example.

    Attributes:
        broken_x: ``(n, c, h, w)`` of each example that is not robust the misclassified iterate with
            the highest objective; ``x`` need not be misclassified. Elsewhere ``x``.
        stuck: ``(n,)`` bool; not broken, and no iterate rose above where its restart began.
        reached: ``(n,)`` the highest objective.
    """

    broken_x: Tensor
    stuck: Tensor
    reached: Tensor

    __repr__ = brief
