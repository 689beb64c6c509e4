"""Average-case flatness of the robust loss."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from robaudit.attacks.pgd import pgd_with
from robaudit.attacks.result import Attacked
from robaudit.engine import Runner, device_of, frozen
from robaudit.engine.runner import BatchSize
from robaudit.flatness.weights import (
    check_radius,
    draw_for,
    in_ball,
    movable_weights,
    moved_network,
    on_sphere,
)
from robaudit.types import Progress, ThreatModel


@dataclass(frozen=True)
class AverageFlatness:
    """The mean rise of the robust loss under random weight perturbations.

    Attributes:
        value: mean over perturbations and examples of the perturbed robust loss, minus the
            reference.
        standard_error: of ``value``, over examples and over perturbations together:
            ``sqrt(se_examples^2 + se_perturbations^2)``, which errs on the safe side.
        reference: the robust loss of the unperturbed network under the same attack.
        perturbed: the robust loss under each perturbation.
    """

    value: float
    standard_error: float
    standard_error_examples: float
    standard_error_perturbations: float
    reference: float
    perturbed: tuple[float, ...]


def average(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    threat: ThreatModel,
    *,
    xi: float = 0.5,
    perturbations: int = 10,
    ball: Literal["sphere", "ball"] = "sphere",
    steps: int = 20,
    step_size: float | None = None,
    restarts: int = 1,
    seed: int = 0,
    index: Tensor | None = None,
    reference: Attacked | None = None,
    batch_size: BatchSize = "auto",
    progress: Progress | None = None,
) -> AverageFlatness:
    """``E_nu [ RLoss(w + nu) ] - RLoss(w)``, ``||nu_l|| = xi ||w_l||`` per parameter tensor.

    One perturbation for the whole set; adversarial examples are made anew on every perturbed
    network, by the same PGD and from the same random starts as on the reference, so that neither
    side is attacked harder. Invariant under rescaling of layers that leaves the function unchanged.

    Args:
        xi: relative radius.
        perturbations: how many are drawn.
        ball: ``sphere`` as the paper's public code does, or uniform inside the ``ball``.
        steps, step_size, restarts: of PGD, on both sides.
        reference: the unperturbed network under the same PGD and seed, where it is there already.

    Source: Stutz, Hein & Schiele, "Relating adversarially robust generalization to flat minima",
    ICCV 2021, Eq. 3-4.
    """
    check_radius(xi, "average", 0.5)
    device = device_of(model)
    total = len(x) * (perturbations + (reference is None))

    def robust_losses(nu: dict[str, Tensor], turn: int) -> Tensor:
        runner = Runner(moved_network(model, weights, nu), device, batch_size)
        found = pgd_with(
            runner, x, y, threat, steps=steps, step_size=step_size, restarts=restarts, seed=seed,
            index=index,
            progress=progress and (lambda d, t: progress(turn * len(x) + d * len(x) // t, total)),
        )  # fmt: skip
        return found.loss.double()

    with frozen(model):
        weights = movable_weights(model)
        if reference is None:
            before, turn = robust_losses({}, 0), 1
        else:
            before, turn = reference.loss.double(), 0
        draw = on_sphere if ball == "sphere" else in_ball
        rows = torch.stack(
            [
                robust_losses(draw(weights, xi, draw_for(seed, "average", j)), turn + j)
                for j in range(perturbations)
            ]
        )
    rises = rows - before
    over_examples = float(rises.mean(0).std() / math.sqrt(len(x))) if len(x) > 1 else math.nan
    means = rises.mean(1)
    over_draws = float(means.std() / math.sqrt(perturbations)) if perturbations > 1 else math.nan
    return AverageFlatness(
        value=float(means.mean()),
        standard_error=math.hypot(over_examples, over_draws),
        standard_error_examples=over_examples,
        standard_error_perturbations=over_draws,
        reference=float(before.mean()),
        perturbed=tuple(rows.mean(1).tolist()),
    )
