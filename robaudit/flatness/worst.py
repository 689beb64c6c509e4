"""Worst-case flatness of the robust loss."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call

from robaudit.attacks.balls import ascend, project, random_start
from robaudit.attacks.objectives import cross_entropy
from robaudit.attacks.pgd import pgd_with
from robaudit.attacks.result import Attacked
from robaudit.engine import TILE, Runner, device_of, frozen
from robaudit.engine.runner import BatchSize
from robaudit.flatness.weights import (
    Weights,
    check_radius,
    draw_for,
    in_ball,
    movable_weights,
    moved_network,
)
from robaudit.types import Progress, ThreatModel


@dataclass(frozen=True)
class WorstFlatness:
    """The largest rise of the robust loss that was found in the relative ball.

    Attributes:
        value: robust loss at the worst weights found, minus the reference: a lower bound on Eq. 5,
            never negative, since the ball holds the unperturbed weights.
        standard_error: over examples, the worst weights held fixed.
        reference: robust loss of the unperturbed network.
        restarts: the joint loss that each restart reached.
        nu: the worst perturbation found, per parameter tensor.
    """

    value: float
    standard_error: float
    reference: float
    restarts: tuple[float, ...]
    nu: Weights


def worst(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    threat: ThreatModel,
    *,
    xi: float = 0.00075,
    passes: int = 20,
    weight_step: float = 0.01,
    restarts: int = 10,
    steps: int = 20,
    step_size: float | None = None,
    attack_restarts: int = 1,
    seed: int = 0,
    index: Tensor | None = None,
    reference: Attacked | None = None,
    batch_size: BatchSize = "auto",
    progress: Progress | None = None,
) -> WorstFlatness:
    """``max_nu RLoss(w + nu) - RLoss(w)`` over ``||nu_l|| <= xi ||w_l||`` per parameter tensor.

    Joint ascent on weights and inputs: each pass over the whole set takes one step in the inputs
    (of ``step_size``, projected on the threat model) and one in the weights,
    ``nu_l += weight_step ||w_l|| g_l / ||g_l||``, projected per tensor; the pass with the highest
    mean loss over all restarts gives the worst weights. One perturbation for the whole set, so the
    result does not depend on a batch size. The first restart begins at the reference's adversarial
    examples, the others at random points. At the worst weights PGD of the reference's strength and
    from its starts is run anew, and the reference's own adversarial examples are tried; the higher
    loss of each example counts. With no perturbation this is the reference itself, so that neither
    side is attacked harder.

    Args:
        xi: relative radius.
        passes: over the set, per restart.
        steps, step_size, attack_restarts: of PGD, on both sides; ``step_size`` also of the joint
            ascent in the inputs; ``eps / 4`` unless given.
        reference: the unperturbed network under the same PGD and seed, where it is there already.

    Source: Stutz, Hein & Schiele, "Relating adversarially robust generalization to flat minima",
    ICCV 2021, Eq. 5.
    """
    check_radius(xi, "worst-case", 0.00075)
    device = device_of(model)
    index = torch.arange(len(x)) if index is None else index
    step = threat.eps / 4 if step_size is None else step_size
    total = passes * restarts

    def attacked(nu: Weights) -> Attacked:
        return pgd_with(
            runner(nu), x, y, threat, steps=steps, step_size=step, restarts=attack_restarts,
            seed=seed, index=index,
        )  # fmt: skip

    def runner(nu: Weights) -> Runner:
        return Runner(moved_network(model, weights, nu), device, batch_size)

    with frozen(model):
        weights = movable_weights(model)
        if reference is None:
            reference = attacked({})
        climbs = []
        for restart in range(restarts):

            def tick(done: int, restart: int = restart) -> None:
                if progress is not None:
                    progress(restart * passes + done, total)

            climbs.append(
                _climb(
                    model, weights, x.to(device), y.to(device), index, threat, xi, passes,
                    weight_step, step, seed, restart, tick, None if restart else reference.x,
                )
            )  # fmt: skip
        highest = max(climbs, key=lambda climb: climb.mean)
        anew = attacked(highest.nu).loss
        carried = cross_entropy(runner(highest.nu).logits(reference.x).cpu(), y)
    rises = torch.maximum(anew, carried).double() - reference.loss.double()
    nu = highest.nu
    if float(rises.mean()) < 0:  # the unperturbed weights are the worst that was found
        rises, nu = torch.zeros_like(rises), {name: 0 * moved for name, moved in nu.items()}
    return WorstFlatness(
        value=float(rises.mean()),
        standard_error=float(rises.std() / math.sqrt(len(x))) if len(x) > 1 else math.nan,
        reference=float(reference.loss.double().mean()),
        restarts=tuple(climb.mean for climb in climbs),
        nu=nu,
    )


@dataclass(frozen=True)
class _Climb:
    mean: float
    nu: Weights


def _climb(
    model: nn.Module,
    weights: Weights,
    x: Tensor,
    y: Tensor,
    index: Tensor,
    threat: ThreatModel,
    xi: float,
    passes: int,
    weight_step: float,
    step: float,
    seed: int,
    restart: int,
    tick: Callable[[int], None],
    begin: Tensor | None,
) -> _Climb:
    """One restart of the joint ascent; its best pass, the start included."""
    nu = in_ball(weights, xi, draw_for(seed, "worst", restart))
    adv = random_start(x, index, threat, seed, restart) if begin is None else begin.to(x)
    best: _Climb | None = None
    for done in range(passes + 1):
        losses, slopes, adv_next = _pass(model, weights, nu, x, adv, y, threat, step)
        if best is None or float(losses.mean()) > best.mean:
            best = _Climb(float(losses.mean()), nu)
        if done == passes:
            break
        tick(done + 1)
        nu = {
            name: _into_ball(
                nu[name] + weight_step * weight.norm() * _unit(slopes[name]), xi * weight.norm()
            )
            for name, weight in weights.items()
        }
        adv = adv_next
    assert best is not None
    return best


def _pass(
    model: nn.Module,
    weights: Weights,
    nu: Weights,
    x: Tensor,
    adv: Tensor,
    y: Tensor,
    threat: ThreatModel,
    step: float,
) -> tuple[Tensor, Weights, Tensor]:
    """Losses ``(n,)`` at ``(nu, adv)``, their gradient in the weights, and the next inputs."""
    leaves = {name: (weights[name] + nu[name]).requires_grad_() for name in weights}
    slopes = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    losses, moved = [], []
    for start in range(0, len(x), TILE):
        part = slice(start, start + TILE)
        with torch.enable_grad():
            image = adv[part].detach().requires_grad_()
            loss = cross_entropy(functional_call(model, leaves, (image,)), y[part])
            gradient, *parts = torch.autograd.grad(
                loss.sum(), [image, *leaves.values()], materialize_grads=True
            )
        losses.append(loss.detach().double())
        moved.append(project(ascend(image.detach(), gradient, step, threat), x[part], threat))
        for name, piece in zip(leaves, parts, strict=True):
            slopes[name] += piece
    return torch.cat(losses), slopes, torch.cat(moved)


def _unit(gradient: Tensor) -> Tensor:
    unit: Tensor = gradient / _norm(gradient)
    return unit


def _into_ball(nu: Tensor, radius: Tensor) -> Tensor:
    return nu * (radius / _norm(nu)).clamp_max(1)


def _norm(tensor: Tensor) -> Tensor:
    norm: Tensor = torch.linalg.vector_norm(tensor)
    return norm.clamp_min(torch.finfo(tensor.dtype).tiny)
