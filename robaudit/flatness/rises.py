"""The mean rise of losses with its standard errors."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Rise:
    """The mean rise of a loss over some examples.

    Attributes:
        value: mean loss of the perturbed networks, minus the reference.
        standard_error: of ``value``, over examples and over perturbations together:
            ``sqrt(se_examples^2 + se_perturbations^2)``, which is conservative; over examples
            only if the perturbation is not a random draw. ``nan`` where there is only one of them.
        standard_error_examples, standard_error_perturbations: its two parts.
        reference: mean loss of the unperturbed network.
        n: examples.
    """

    value: float
    standard_error: float
    standard_error_examples: float
    standard_error_perturbations: float
    reference: float
    n: int


def rise(rows: Tensor, before: Tensor, drawn: bool = True) -> Rise:
    """The rise from ``before``, ``(n,)``, to the losses ``rows``, ``(perturbations, n)``.

    Args:
        drawn: the perturbations are random draws, one row each.
    """
    rises = rows - before
    draws, n = rises.shape
    over_examples = float(rises.mean(0).std() / math.sqrt(n)) if n > 1 else math.nan
    means = rises.mean(1)
    over_draws = float(means.std() / math.sqrt(draws)) if draws > 1 else math.nan
    return Rise(
        value=float(means.mean()),
        standard_error=math.hypot(over_examples, over_draws) if drawn else over_examples,
        standard_error_examples=over_examples,
        standard_error_perturbations=over_draws,
        reference=float(before.mean()),
        n=n,
    )


def parts(rows: Tensor, before: Tensor, correct: Tensor, drawn: bool = True) -> dict[str, Rise]:
    """:func:`rise` for the examples that the unperturbed network classifies correctly when clean,
    and for the others; a part without examples is left out.

    Source: the split of Stutz, Hein & Schiele, ICCV 2021, Fig. 5.
    """
    masks = {"correct": correct, "incorrect": ~correct}
    return {
        name: rise(rows[:, mask], before[mask], drawn)
        for name, mask in masks.items()
        if bool(mask.any())
    }
