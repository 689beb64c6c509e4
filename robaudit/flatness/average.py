"""Average-case flatness of the robust loss."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from robaudit.attacks.result import AttackResult
from robaudit.brief import brief
from robaudit.engine import (
    device_of,
    effective,
    effective_notes,
    frozen,
    idle_note,
    idle_parameters,
    kept_entries,
)
from robaudit.engine.arguments import checked
from robaudit.engine.runner import BatchSize
from robaudit.flatness.losses import Loss, finite
from robaudit.flatness.perturbed import Perturbed
from robaudit.flatness.rises import Rise, parts, rise
from robaudit.flatness.stacked import Blocks, StackSize
from robaudit.flatness.weights import (
    draw_for,
    in_ball,
    movable_weights,
    on_sphere,
)
from robaudit.protocols import Protocol, check_xi, reference_restarts, step_of
from robaudit.types import Progress, ThreatModel, share_of

# A standard error over fewer draws than this is too uncertain itself to stop at.
_FEWEST = 5


@dataclass(frozen=True)
class AverageFlatness(Rise):
    """The mean rise of the robust loss under random weight perturbations.

    Attributes:
        perturbed: the robust loss under each perturbation that was drawn.
        parts: the same for the examples that the unperturbed network classifies correctly when
            clean, and for the others.
        notes: what was taken for the weights, where the parameters as they stand are not; why
            fewer perturbed networks or images were in a pass than was tried.
    """

    perturbed: tuple[float, ...]
    parts: Mapping[str, Rise]
    notes: tuple[str, ...]

    __repr__ = brief


@checked
def average(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    threat: ThreatModel | None,
    *,
    xi: float = 0.5,
    perturbations: int = 10,
    ball: Literal["sphere", "ball"] = "sphere",
    protocol: Protocol = "default",
    tolerance: float | None = None,
    steps: int = 20,
    step_size: float | None = None,
    restarts: int = 1,
    seed: int = 0,
    index: Tensor | None = None,
    reference: AttackResult | None = None,
    batch_size: BatchSize = "auto",
    stack: StackSize = "auto",
    progress: Progress | None = None,
) -> AverageFlatness:
    """``E_nu [ RLoss(w + nu) ] - RLoss(w)``, ``||nu_l|| = xi ||w_l||`` per parameter tensor.

    One perturbation for the whole set; adversarial examples are made anew on every perturbed
    network, by the same PGD and from the same random starts as on the reference, so that neither
    side is attacked harder. Invariant under rescaling of layers that leaves the function unchanged.

    Args:
        threat: ``None`` for the flatness of the clean loss.
        xi: relative radius.
        perturbations: how many are drawn.
        ball: ``sphere`` as the paper's public code does, or uniform inside the ``ball``.
        protocol: ``stutz2021`` and ``stutz2021-text``, which are the same here, attack the
            reference from ten random starts and the perturbed networks from one, as published,
            which lowers the value.
        tolerance: stop drawing once the standard error is below it, after five draws at the
            earliest. Which draws are made then depends on the losses, so the mean is no longer
            exactly unbiased.
        stack: perturbed networks in a pass; ``auto`` is one on a CPU and what is fastest on a GPU
            with room for it. Rounding apart, nothing depends on it, not when drawing stops either.
        steps, step_size, restarts: of PGD, on both sides; a step is eps/4 unless given, 0.007 at
            eps 8/255 and in proportion elsewhere in the published ones.
        reference: the unperturbed network under the reference's PGD and seed, where it is there.

    Source: Stutz, Hein & Schiele, "Relating adversarially robust generalization to flat minima",
    ICCV 2021, Eq. 3-4.
    """
    check_xi(xi, "average", 0.5)
    given, model = model, effective(model, x)
    device = device_of(model)
    many = reference_restarts(protocol, restarts)
    step = step_of(protocol, threat, step_size)
    loss = Loss(x, y, threat, steps, step, seed, index, device, batch_size)
    first = len(x) * many if reference is None else 0
    work = first + len(x) * perturbations * restarts

    with frozen(model):
        idle = idle_parameters(model, x)
        weights, kept = movable_weights(model, idle), kept_entries(model)
        network = Perturbed(model, weights, x.shape[1:])
        if reference is None:
            reference = loss.reference(model, many, share_of(progress, 0, first, work))
        before = reference.loss.double()
        draw = on_sphere if ball == "sphere" else in_ball

        def drawn(block: range) -> list[Tensor]:
            nus = [draw(weights, xi, draw_for(seed, "average", j), kept) for j in block]
            draws = len(x) * restarts
            bar = share_of(progress, first + block.start * draws, len(nus) * draws, work)
            return list(loss.of_all(network.at(*nus), len(nus), restarts, bar))

        blocks = Blocks(stack, device, network.refusal)
        rows: list[Tensor] = []
        for losses in blocks.over(perturbations, drawn):
            rows.append(finite(losses).double())
            enough = tolerance is not None and len(rows) >= _FEWEST
            if enough and rise(torch.stack(rows), before).standard_error < (tolerance or 0):
                break
    made = torch.stack(rows)
    return AverageFlatness(
        **vars(rise(made, before)),
        perturbed=tuple(made.mean(1).tolist()),
        parts=parts(made, before, reference.correct),
        notes=(*effective_notes(given, model), *idle_note(idle), *blocks.notes, *loss.notes),
    )
