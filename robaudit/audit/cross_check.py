"""What an attack tells of the gradients that it used, with a short search that needs none."""

from __future__ import annotations

import torch
from torch import Tensor

from robaudit.attacks.blind import rival
from robaudit.attacks.diagnostics import Diagnostics
from robaudit.attacks.objectives import LossName
from robaudit.attacks.result import Ascended, Attacked
from robaudit.audit.context import Context
from robaudit.engine import frozen


def rivalled(
    context: Context, rows: Tensor, loss: LossName, reached: Tensor, attacked: Attacked
) -> Diagnostics:
    """How the search did against an attack on some of the ``rows``, which that left standing."""
    examples = context.splits[context.main]
    cost = attacked.forwards + 2 * attacked.backwards
    with frozen(context.model):
        found = rival(
            context.runner(), examples.x[rows], examples.y[rows], examples.index[rows],
            context.threat, loss, reached, cost, context.seed,
        )  # fmt: skip
    ahead, broke = int(found.ahead.sum()), int(found.broke.sum())
    return Diagnostics(0, 0, 0, 0, 0, len(found.ahead), ahead, broke)


def diagnosed(context: Context, loss: LossName, attacked: Ascended) -> Diagnostics:
    """What a PGD of the audited split tells."""
    own = Diagnostics(int(attacked.correct.sum()), 0, int(attacked.stuck.sum()), 0, 0)
    rows = torch.nonzero(attacked.robust)[:, 0]
    return own + rivalled(context, rows, loss, attacked.reached[rows], attacked)
