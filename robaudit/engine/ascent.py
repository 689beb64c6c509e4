"""Projected gradient ascent: the loop that all attacks with a fixed step size share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from torch import Tensor

from robaudit.engine.projections import Ball
from robaudit.engine.runner import PerImageObjective, Runner


class Iterate(NamedTuple):
    """One point of an ascent.

    Attributes:
        x, gradient: ``(n, c, h, w)`` the images and the objective's gradient; the last iterate has
            none.
        values, logits: ``(n,)`` the objective and ``(n, k)`` the logits.
    """

    x: Tensor
    values: Tensor
    logits: Tensor
    gradient: Tensor | None = None


def ascent(
    runner: Runner,
    objective: PerImageObjective,
    start: Tensor,
    y: Tensor,
    ball: Ball,
    step: float,
    steps: int,
) -> Iterator[Iterate]:
    """The ``steps + 1`` iterates ``x_{t+1} = P(x_t + a d_t)``, the start among them.

    ``d_t`` is the ascent direction of the objective in the ball's norm
    (:func:`robaudit.engine.projections.ascend`) and ``P`` the projection on the ball and on
    ``[0, 1]``. The last iterate costs a forward pass only.

    Args:
        objective: logits ``(n, k)`` and labels to one value per image.
        start: ``(n, c, h, w)`` inside the ball.
        step: ``a``, in the units of the ball's norm.
    """
    x = start
    for _ in range(steps):
        values, gradient, logits = runner.gradient(objective, x, y)
        yield Iterate(x, values, logits, gradient)
        x = ball.step(x, gradient, step)
    logits = runner.logits(x)
    yield Iterate(x, objective(logits, y), logits)
