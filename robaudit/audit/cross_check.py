"""Whether an attack's gradients can be trusted, checked by a short search without gradients."""

from __future__ import annotations

import torch
from torch import Tensor

from robaudit.attacks.diagnostics import Diagnostics
from robaudit.attacks.objectives import LossName
from robaudit.attacks.result import AttackResult, known
from robaudit.attacks.square_check import square_check
from robaudit.audit.context import Context
from robaudit.engine import frozen

# Within smaller radii float32 cannot resolve the change of the loss by one step.
_SEEN = 1e-4


def rivalled(
    context: Context, rows: Tensor, loss: LossName, reached: Tensor, attacked: AttackResult
) -> Diagnostics:
    """Compare a search without gradients with an attack, on ``rows`` that withstood the attack."""
    if context.threat.eps < _SEEN:
        return Diagnostics(0, 0, 0, 0, 0)
    examples = context.splits[context.main]
    cost = attacked.forwards + 2 * attacked.backwards
    with frozen(context.model):
        found = square_check(
            context.runner(),
            examples.x[rows],
            examples.y[rows],
            examples.index[rows],
            context.threat,
            loss,
            reached,
            cost,
            context.seed,
        )
    broke = int(found.broke.sum())
    # A network's noise differs from place to place in a batch, so that two values do not compare.
    ahead = int(found.ahead.sum()) if context.samples is None else broke
    return Diagnostics(0, 0, 0, 0, 0, len(found.ahead), ahead, broke)


def diagnosed(context: Context, loss: LossName, attacked: AttackResult) -> Diagnostics:
    """The diagnostics of a PGD on the audited split."""
    stuck = int(known(attacked.stuck).sum()) if context.threat.eps >= _SEEN else 0
    own = Diagnostics(int(attacked.correct.sum()), 0, stuck, 0, 0)
    rows = torch.nonzero(attacked.robust)[:, 0]
    return own + rivalled(context, rows, loss, known(attacked.reached)[rows], attacked)
