"""How many passes of its network a job takes: what ``--dry-run`` shows."""

from __future__ import annotations

from robaudit.audit.plan import Plan
from robaudit.audit.probes import Clean, Pgd


def passes(plan: Plan, n: int, n_train: int = 0) -> int:
    """Passes of one example that a plan takes at most; a backward pass counts as two.

    Adversarial examples that several probes need are counted once.

    Args:
        n: examples of the audited split.
        n_train: examples of the training split, for the generalisation gaps.
    """
    total = 0
    attacked: dict[Pgd, int] = {}
    for probe in (Clean(), *plan.probes):
        total += probe.price(n, n_train)
        for pgd, examples in probe.shared(n, n_train).items():
            attacked[pgd] = max(examples, attacked.get(pgd, 0))
    return total + sum(examples * pgd.passes_each for pgd, examples in attacked.items())
