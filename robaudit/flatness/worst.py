"""Worst-case flatness of the robust loss."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from robaudit.attacks.objectives import cross_entropy
from robaudit.attacks.result import AttackResult
from robaudit.brief import brief
from robaudit.engine import (
    device_of,
    devices_of,
    edge_nudge,
    effective,
    effective_notes,
    frozen,
    idle_note,
    idle_parameters,
    kept_entries,
)
from robaudit.engine.arguments import checked
from robaudit.engine.images import rows_of
from robaudit.engine.precision import Asked, Precision, candidates, coarsest
from robaudit.engine.projections import random_start
from robaudit.engine.runner import BatchSize
from robaudit.engine.several import over_devices, replicas
from robaudit.engine.spilled import computed
from robaudit.flatness.joint_ascent import JointAscent, RestartResult
from robaudit.flatness.losses import RobustLoss
from robaudit.flatness.perturbed import Perturbed
from robaudit.flatness.rises import Rise, parts, rise
from robaudit.flatness.stacked import Blocks, StackSize
from robaudit.flatness.weights import (
    Weights,
    draw_for,
    in_ball,
    movable_weights,
)
from robaudit.protocols import STUTZ_BATCH, Protocol, check_xi, reference_restarts, step_of
from robaudit.types import Progress, ThreatModel


@dataclass(frozen=True)
class WorstFlatness(Rise):
    """The largest rise of the robust loss that was found in the relative ball.

    Attributes:
        value: robust loss at the worst weights found, minus the reference, in nats: a lower bound
            on Eq. 5. Never negative in the default protocol, since the ball contains the
            unperturbed weights.
        standard_error: over examples, for fixed worst weights.
        restarts: the joint loss that each restart reached.
        nu: the worst perturbation found, by parameter tensor; in ``stutz2021-text`` with a first
            dimension for the batches.
        parts: value and error of the examples that the unperturbed network classifies correctly
            when clean, and of the others, at the same weights.
        notes: which tensors were taken as the weights, if not the parameters; why passes were
            smaller than intended.
        searched: the arithmetic of the joint ascent's gradients. All losses are float32's.
    """

    restarts: tuple[float, ...]
    nu: Weights
    parts: Mapping[str, Rise]
    notes: tuple[str, ...]
    searched: Precision

    __repr__ = brief


@checked
def worst(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    threat: ThreatModel | None,
    *,
    xi: float = 0.00075,
    passes: int = 20,
    weight_step: float = 0.01,
    restarts: int = 10,
    protocol: Protocol = "default",
    steps: int = 20,
    step_size: float | None = None,
    attack_restarts: int = 1,
    seed: int = 0,
    index: Tensor | None = None,
    reference: AttackResult | None = None,
    precision: Asked = "auto",
    batch_size: BatchSize = "auto",
    stack: StackSize = "auto",
    progress: Progress | None = None,
) -> WorstFlatness:
    """``max_nu RLoss(w + nu) - RLoss(w)`` over ``||nu_l|| <= xi ||w_l||`` per parameter tensor.

    ``RLoss`` is the mean over examples of the highest cross-entropy under PGD. Joint ascent on
    weights and inputs: each pass over the whole set takes one step in the inputs and one in the
    weights, ``nu_l += weight_step ||w_l|| g_l / ||g_l||``, projected per tensor; the pass with the
    highest mean loss over all restarts gives the worst weights. One perturbation holds for the
    whole set, so the result does not depend on a batch size. The first restart begins at the
    reference's adversarial examples, the others at random points.

    At the worst weights PGD of the reference's strength and from its starts is run again, and the
    reference's adversarial examples are evaluated as well; the higher loss of each example counts.
    Without a perturbation this gives the reference itself, so that both networks are attacked
    equally strongly. Both searches are in float32: in a faster arithmetic, rounding makes the two
    sets of examples more different than the perturbation does, and the higher of two losses higher.

    The protocol ``stutz2021`` is that of the published code: one perturbation takes a step after
    each batch of 128 images, in their order, so that it ends near the gradient of the last batch;
    the last value of each restart counts, every restart begins at random points (uniform in the
    balls; the code draws the distance uniformly), nothing is attacked again at the worst weights,
    and the reference gets ten random starts. Its value can be negative. In ``stutz2021-text``, as
    the paper describes it, each batch of 128 has a perturbation of its own.

    Args:
        model: maps images in ``[0, 1]`` to logits ``(n, k)``; it runs in evaluation mode and its
            parameters are left as they were.
        x, y: images ``(n, c, h, w)`` in ``[0, 1]`` and labels ``(n,)`` from 0.
        threat: of the adversarial examples; ``None`` for the flatness of the clean loss, where the
            inputs do not move.
        xi: relative radius.
        passes: over the set, per restart.
        weight_step: step size in the weights, relative to each tensor's norm.
        restarts: of the joint ascent.
        protocol: see above.
        steps, attack_restarts: of PGD, for both networks.
        step_size: of PGD and of the joint ascent in the inputs; ``eps / 4`` unless given, and in
            the published protocols 0.007 at eps 8/255 and in proportion elsewhere.
        seed: of all random draws.
        index: ``(n,)`` the examples' positions in their data set, which seed their starting points;
            ``0..n-1`` unless given.
        reference: the PGD of the unperturbed network with these settings, if it is known already;
            used if it was searched in float32.
        precision: of the joint ascent's gradients, as in :func:`robaudit.engine.accelerate`; the
            losses are float32's, those that compare perturbations included.
        batch_size: images per pass on a GPU; no result depends on it beyond rounding.
        stack: restarts per pass; ``auto`` is one on a CPU, and on a GPU the fastest number for
            which there is memory. No result depends on it beyond rounding. Several devices have
            one restart each.
        progress: called with the work done and the work in all.

    Returns:
        The largest rise of the loss that was found, in nats, with its perturbation.

    Raises:
        UsageError: a radius that is not positive, or restarts that the protocol does not have.
        NotMeasuredError: losses that are not finite, or a network without weights to perturb.

    Source: Stutz, Hein & Schiele, "Relating adversarially robust generalization to flat minima",
    ICCV 2021, Eq. 5.

    >>> from torch import nn
    >>> net, x = nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), torch.rand(3, 1, 2, 2)
    >>> y, threat = torch.zeros(3).long(), ThreatModel("linf", 0.1)
    >>> found = worst(net, x, y, threat, restarts=1, passes=2)
    >>> found.value >= 0, sorted(found.nu)
    (True, ['1.bias', '1.weight'])
    """
    check_xi(xi, "worst-case", 0.00075)
    plain = effective(model, x)
    device = device_of(plain)
    index = torch.arange(len(x)) if index is None else index
    step = step_of(protocol, threat, step_size)
    many = reference_restarts(protocol, attack_restarts)
    published = protocol != "default"

    loss = RobustLoss(x, y, threat, steps, step, seed, index, device, batch_size)

    with frozen(plain):
        idle = idle_parameters(plain, x)
        weights, kept = movable_weights(plain, idle), kept_entries(plain)
        exact = Perturbed(plain, weights, x.shape[1:])
        coarse = coarsest(candidates(precision, device)) != "fp32"

        def climbing_on(network: nn.Module, own: Weights) -> Perturbed:
            if not coarse:
                return exact if network is plain else Perturbed(network, own, x.shape[1:])
            return Perturbed(network, own, x.shape[1:], precision, examples=x, threat=threat)

        met = loss.same_search(reference) or loss.reference(plain, many)
        climbing = climbing_on(plain, weights)
        ascent = JointAscent(
            climbing,
            weights,
            x.to(device),
            y.to(device),
            threat,
            xi,
            passes,
            weight_step,
            step,
            loss.tile,
            keep_best=not published,
            nudge=edge_nudge(plain, x[:1].to(device)),
            kept=kept,
        )
        ascents = _on_each(ascent, replicas(plain, x)[1:], climbing_on)
        given = met.x  # the images themselves for the clean loss

        def run(at: int, block: range) -> list[RestartResult]:
            own, place = ascents[at], devices[at]

            def tick(done: int) -> None:
                if progress is not None and len(ascents) == 1:
                    progress(block.start * passes + done * len(block), passes * restarts)

            nus = [in_ball(own.weights, xi, draw_for(seed, "worst", k), own.kept) for k in block]
            advs = [
                _random(x, index, threat, seed, restart)
                if threat is not None and (published or restart)
                else given
                for restart in block
            ]
            starts = nus, [adv.to(place) for adv in advs]
            if protocol == "stutz2021":
                return own.run_batch_by_batch(*starts, STUTZ_BATCH, tick)
            if protocol == "stutz2021-text":
                return own.run_per_batch(*starts, STUTZ_BATCH, tick)
            return own.run(*starts, tick)

        devices = devices_of(plain)[: len(ascents)]
        blocks = Blocks(stack, device, climbing.refusal)
        if len(ascents) == 1:
            results = list(blocks.over(restarts, lambda block: run(0, block)))
        else:
            each = [range(k, k + 1) for k in range(restarts)]
            results = []
            for found in over_devices(devices, each, run):
                results += found
                if progress is not None:
                    progress(len(results) * passes, restarts * passes)
        highest = max(results, key=lambda result: result.mean)
        nu = {name: moved.to(device) for name, moved in highest.nu.items()}
        before = met.loss.double()
        if published:
            after = highest.losses.cpu()
        else:
            forward = exact.at(nu)
            anew = loss.of(forward, attack_restarts)
            carried = cross_entropy(loss.runner(forward).logits(met.x).cpu(), y.cpu())
            after = torch.maximum(anew, carried).double()
            if float((after - before).mean()) < 0:  # the unperturbed weights are the worst found
                after, nu = before, {name: 0 * moved for name, moved in nu.items()}
    return WorstFlatness(
        **vars(rise(after[None], before, drawn=False)),
        restarts=tuple(result.mean for result in results),
        nu=nu,
        parts=parts(after[None], before, met.correct, drawn=False),
        notes=(*effective_notes(model, plain), *idle_note(idle), *blocks.notes, *loss.notes),
        searched=climbing.precision,
    )


def _on_each(
    first: JointAscent,
    copies: Sequence[nn.Module],
    climbing_on: Callable[[nn.Module, Weights], Perturbed],
) -> list[JointAscent]:
    """The ascents on the network and on its copies, each on its device.

    On the first alone in TF32, which is a setting of the process while the losses are in float32.
    """
    precision = first.network.precision
    found = [replace(first, beside=True)]
    for copied in copies:
        place = device_of(copied)
        own = {name: weight.to(place) for name, weight in first.weights.items()}
        kept = {name: mask.to(place) for name, mask in first.kept.items()}
        x, y, network = first.x.to(place), first.y.to(place), climbing_on(copied, own)
        if precision == "tf32" or network.precision != precision:
            return [first]
        found.append(replace(found[0], network=network, weights=own, x=x, y=y, kept=kept))
    return found if copies else [first]


def _random(x: Tensor, index: Tensor, threat: ThreatModel, seed: int, restart: int) -> Tensor:
    """A random start for each image."""

    def of(rows: Tensor) -> Tensor:
        images = rows_of(x, rows, torch.device("cpu"))
        return random_start(images, index[rows], threat, seed, restart)

    return computed(x, of)
