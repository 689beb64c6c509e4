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
from robaudit.engine.precision import Asked, Precision
from robaudit.engine.runner import BatchSize
from robaudit.flatness.losses import RobustLoss, finite, searched_well
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

# A standard error over fewer draws than this is too uncertain to stop at.
_FEWEST = 5


@dataclass(frozen=True)
class AverageFlatness(Rise):
    """The mean rise of the robust loss under random weight perturbations.

    Attributes:
        perturbed: the robust loss of each perturbed network.
        parts: the same for the examples that the unperturbed network classifies correctly when
            clean, and for the others.
        notes: which tensors were taken as the weights, if not the parameters; why passes were
            smaller than intended.
        searched: the arithmetic that adversarial examples were searched in, of all networks alike.
            All losses are float32's.
    """

    perturbed: tuple[float, ...]
    parts: Mapping[str, Rise]
    notes: tuple[str, ...]
    searched: Precision

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
    precision: Asked = "auto",
    batch_size: BatchSize = "auto",
    stack: StackSize = "auto",
    progress: Progress | None = None,
) -> AverageFlatness:
    """``E_nu [ RLoss(w + nu) ] - RLoss(w)`` with ``||nu_l|| = xi ||w_l||`` per parameter tensor.

    ``RLoss`` is the mean over examples of the highest cross-entropy under PGD. Each perturbation
    holds for the whole set. Adversarial examples are computed anew on every perturbed network, by
    the same PGD and from the same random starts as on the reference, so that both are attacked
    equally strongly. The value does not change under rescalings of layers that leave the function
    unchanged.

    Args:
        model: maps images in ``[0, 1]`` to logits ``(n, k)``; it runs in evaluation mode and its
            parameters are left as they were.
        x, y: images ``(n, c, h, w)`` in ``[0, 1]`` and labels ``(n,)`` from 0.
        threat: of the adversarial examples; ``None`` for the flatness of the clean loss.
        xi: relative radius.
        perturbations: the number of random perturbations.
        ball: ``sphere``, on the sphere, as the paper's public code; ``ball``, uniform in the ball.
        protocol: ``stutz2021`` and ``stutz2021-text``, which are the same here, attack the
            reference from ten random starts and the perturbed networks from one, as published,
            which lowers the value.
        tolerance: stop once the standard error is below it, after at least five perturbations. How
            many are drawn then depends on the losses, so the mean is no longer exactly unbiased.
        steps, step_size, restarts: of PGD, for both networks; ``step_size`` is ``eps / 4`` unless
            given, and in the published protocols 0.007 at eps 8/255 and in proportion elsewhere.
        seed: of all random draws.
        index: ``(n,)`` the examples' positions in their data set, which seed their starting points;
            ``0..n-1`` unless given.
        reference: the PGD of the unperturbed network with these settings, if it is known already;
            used if it was searched in the arithmetic that the perturbed networks are searched in.
        precision: of the searches for adversarial examples, as in
            :func:`robaudit.engine.accelerate`; the losses are float32's.
        batch_size: images per pass on a GPU; no result depends on it beyond rounding.
        stack: perturbed networks per pass; ``auto`` is one on a CPU, and on a GPU the fastest
            number for which there is memory. No result depends on it beyond rounding.
        progress: called with the work done and the work in all.

    Returns:
        The mean rise of the loss, in nats, with standard errors over examples and perturbations.

    Raises:
        UsageError: a radius that is not positive.
        NotMeasuredError: losses that are not finite, or a network without weights to perturb.

    Source: Stutz, Hein & Schiele, "Relating adversarially robust generalization to flat minima",
    ICCV 2021, Eq. 3-4.

    >>> from torch import nn
    >>> net, x = nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), torch.rand(3, 1, 2, 2)
    >>> found = average(net, x, torch.zeros(3).long(), ThreatModel("linf", 0.1), perturbations=2)
    >>> len(found.perturbed), found.n
    (2, 3)
    """
    check_xi(xi, "average", 0.5)
    given, model = model, effective(model, x)
    device = device_of(model)
    many = reference_restarts(protocol, restarts)
    step = step_of(protocol, threat, step_size)
    draw = on_sphere if ball == "sphere" else in_ball

    def measured(asked: Asked, coarse: tuple[str, ...]) -> AverageFlatness:
        network = Perturbed(model, weights, x.shape[1:], asked, examples=x, threat=threat)
        how = step, seed, index, device, batch_size, network.precision
        loss = RobustLoss(x, y, threat, steps, *how)
        met = loss.same_search(reference)
        first = len(x) * many if met is None else 0
        work = first + len(x) * perturbations * restarts
        if met is None:
            bar = share_of(progress, 0, first, work)
            met = loss.reference(model, many, bar, network.at({}))
        before = met.loss.double()

        def drawn(block: range) -> list[Tensor]:
            nus = [draw(weights, xi, draw_for(seed, "average", j), kept) for j in block]
            draws = len(x) * restarts
            bar = share_of(progress, first + block.start * draws, len(nus) * draws, work)
            forward, judges = network.at(*nus), network.judges(*nus)
            return list(loss.of_all(forward, len(nus), restarts, bar, judges))

        blocks = Blocks(stack, device, network.refusal)
        rows: list[Tensor] = []
        for losses in blocks.over(perturbations, drawn):
            rows.append(finite(losses).double())
            enough = tolerance is not None and len(rows) >= _FEWEST
            if enough and rise(torch.stack(rows), before).standard_error < (tolerance or 0):
                break
        made = torch.stack(rows)
        noted = *effective_notes(given, model), *idle_note(idle), *coarse
        return AverageFlatness(
            **vars(rise(made, before)),
            perturbed=tuple(made.mean(1).tolist()),
            parts=parts(made, before, met.correct),
            notes=(*noted, *blocks.notes, *loss.notes),
            searched=network.precision,
        )

    with frozen(model):
        idle = idle_parameters(model, x)
        weights, kept = movable_weights(model, idle), kept_entries(model)
        return searched_well(measured, "fp32" if threat is None else precision)
