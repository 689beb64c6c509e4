"""Projected gradient ascent: the loop that all attacks with a fixed step size share."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from robaudit.engine.projections import Ball
from robaudit.engine.runner import PerImageObjective, Runner

Visit = Callable[[Tensor, Tensor, Tensor, Tensor | None], None]


def ascend_from(
    start: Tensor,
    y: Tensor,
    runner: Runner,
    objective: PerImageObjective,
    ball: Ball,
    step: float,
    steps: int,
    visit: Visit,
) -> None:
    """Visit the ``steps + 1`` iterates ``x_{t+1} = P(x_t + a d_t)``, the start among them.

    ``d_t`` is the ascent direction of the objective in the ball's norm
    (:func:`robaudit.engine.projections.ascend`) and ``P`` the projection on the ball and on
    ``[0, 1]``. The last iterate costs a forward pass only.

    Args:
        start, y: ``(n, c, h, w)`` inside the ball, and labels.
        objective: logits ``(n, k)`` and labels to one value per image.
        step: ``a``, in the units of the ball's norm.
        visit: takes each iterate ``(n, c, h, w)``, its objective ``(n,)``, its logits ``(n, k)``,
            and the objective's gradient, which is ``None`` for the last one. Keeping a reference to
            an iterate costs time: torch then allocates new memory instead of reusing the old.
    """
    x = start
    for _ in range(steps):
        values, gradient, logits = runner.gradient(objective, x, y)
        visit(x, values, logits, gradient)
        x = ball.step(x, gradient, step)
        del values, gradient, logits
    logits = runner.logits(x)
    visit(x, objective(logits, y), logits, None)
