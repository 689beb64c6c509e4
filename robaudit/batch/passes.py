"""How many passes of its network a job takes: what ``--dry-run`` shows."""

from __future__ import annotations

from robaudit import measures
from robaudit.audit.plan import Pgd, Plan
from robaudit.flatness.protocols import reference_restarts

# In passes of one example, where a backward pass counts as two: the gradient of a loss; the exact
# layer traces of ten classes; a Hessian-vector product.
_GRADIENT, _TRACES, _PRODUCT = 3, 20, 6


def passes(plan: Plan, n: int, n_train: int = 0) -> int:
    """Passes of one example that a plan takes at most; a backward pass counts as two.

    An attack is counted as if it broke no example. Layer traces are counted as for ten classes.
    Adversarial examples that several probes need are counted once.

    Args:
        n: examples of the audited split.
        n_train: examples of the training split, for the generalisation gaps.
    """
    both = n + n_train
    attacked: dict[Pgd, int] = {}
    total = both

    def once(pgd: Pgd, examples: int) -> None:
        attacked[pgd] = max(examples, attacked.get(pgd, 0))

    if plan.pgd is not None:
        once(plan.pgd, both)
    if plan.cw is not None:
        total += n * _attack(plan.cw)
    if plan.fast is not None:
        total += n * measures.find("accuracy.fast").passes
    if plan.autoattack is not None:
        total += n * measures.find("accuracy.autoattack").passes
    if plan.wci is not None:
        once(plan.wci.pgd, both)
        total += both * _TRACES
    if plan.top_layer is not None:
        once(plan.top_layer.pgd, n)
        total += n
    if (hessian := plan.hessian) is not None:
        some = min(n, hessian.n or n)
        once(hessian.pgd, some)
        products = 2 * hessian.steps + (hessian.probes - 1) * hessian.density_steps
        total += some * (products * _PRODUCT + _TRACES)
    if (average := plan.average) is not None:
        restarts = reference_restarts(average.protocol, average.pgd.restarts)
        reference = Pgd(**{**vars(average.pgd), "restarts": restarts})
        once(reference, n)
        total += n * average.perturbations * _attack(average.pgd)
    if (worst := plan.worst) is not None:
        total += n * (worst.restarts * (worst.passes + 1) * _GRADIENT + _attack(worst.pgd))
    return total + sum(examples * _attack(pgd) for pgd, examples in attacked.items())


def _attack(pgd: Pgd) -> int:
    return pgd.restarts * (pgd.steps * _GRADIENT + 1) + 1
