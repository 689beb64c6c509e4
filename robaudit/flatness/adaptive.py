"""Adaptive sharpness: the rise of the loss where every weight moves in proportion to its size."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call

from robaudit.attacks.objectives import cross_entropy
from robaudit.brief import brief
from robaudit.engine import (
    Runner,
    device_of,
    devices_of,
    effective,
    effective_notes,
    frozen,
    idle_note,
    idle_parameters,
)
from robaudit.engine.arguments import checked
from robaudit.engine.runner import BatchSize
from robaudit.engine.several import over_devices, replicas
from robaudit.errors import NotMeasuredError, UsageError
from robaudit.flatness.adaptive_ascent import highest_rise
from robaudit.flatness.losses import finite
from robaudit.flatness.rises import Rise, rise
from robaudit.flatness.stacked import moved_to
from robaudit.flatness.weights import Weights, draw_for
from robaudit.types import Progress

WeightNorm = Literal["linf", "l2"]
# Shortest vector of centred logits that is scaled to length one.
_SHORTEST = 1e-10


@dataclass(frozen=True)
class AdaptiveSharpness(Rise):
    """The rise of the loss within a relative ball around the weights.

    Attributes:
        groups: the rise of each group of examples that has a perturbation of its own; of the worst
            case only.
        perturbed: the mean loss of each perturbed network; of the average case only.
        notes: which tensors were taken as the weights, if not the parameters.
    """

    groups: tuple[float, ...]
    perturbed: tuple[float, ...]
    notes: tuple[str, ...]

    __repr__ = brief


@checked
def adaptive_worst(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    norm: WeightNorm = "linf",
    rho: float = 0.002,
    m: int = 128,
    steps: int = 20,
    normalize_logits: bool = True,
    progress: Progress | None = None,
) -> AdaptiveSharpness:
    """``mean_B max_{||d / |w| ||_p <= rho} L_B(w + d) - L_B(w)`` over groups ``B`` of m examples.

    ``w`` are all parameters, normalisation and biases included, and ``d / |w|`` is elementwise: a
    weight that is zero stays zero. ``L_B`` is the mean cross-entropy of the group. The examples are
    divided in their order into the fewest groups of at most ``m``, of equal size up to one.

    The search is Auto-PGD from ``d = 0`` in ``u = d / |w|``, where the ball is round: steps along
    the sign of the gradient (linf) or along it with norm 1 (l2), momentum 0.75, first step ``2
    rho``, halved at Auto-PGD's checkpoints. The authors' code steps and projects in ``d``; in ``u``
    not only the maximum but also what is found is the same for two networks that are rescalings of
    each other. It makes no random draw. The value is a lower bound of the maximum, and not below 0.

    Args:
        model: images to logits ``(n, k)``; it is left unchanged.
        x, y: images ``(n, c, h, w)`` in ``[0, 1]``, held fixed, and labels ``(n,)``.
        norm: ``linf`` or ``l2``, of the relative perturbation of all parameters together.
        rho: its radius.
        m: largest size of a group.
        steps: of the search.
        normalize_logits: take the loss of ``(z - mean z) / ||z - mean z||``, which does not change
            with the scale of the logits ``z``.
        progress: called with the work done and the work in all.

    Returns:
        The rise in nats; its standard error is over examples, at the worst weights found.

    Raises:
        UsageError: a radius that is not positive, or groups without examples.
        NotMeasuredError: losses that are not finite, or a network without weights to perturb.

    Source: Andriushchenko et al., "A modern look at the relationship between sharpness and
    generalization", ICML 2023; the default is the definition whose group size their code
    varies (adaptive, linf, normalised logits; its radii are 0.001 to 0.008). Elementwise
    normalisation: Kwon et al., "ASAM", ICML 2021. Search: Croce & Hein, ICML 2020.

    >>> net = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    >>> found = adaptive_worst(net, torch.rand(5, 1, 2, 2), torch.zeros(5).long(), m=3)
    >>> found.value >= 0, len(found.groups)
    (True, 2)
    """
    _check_radius(rho)
    if m < 1:
        raise UsageError(f"m must be a whole number of at least 1, not {m}")
    given, model = model, effective(model, x)
    with frozen(model):
        weights, idle = _weights(model, x)
        networks = [(model, weights)]
        for copied in replicas(model, x)[1:]:
            own = {name: weight.to(device_of(copied)) for name, weight in weights.items()}
            networks.append((copied, own))
        alone, many = len(networks) == 1, math.ceil(len(x) / m)
        slices = [slice(k * len(x) // many, (k + 1) * len(x) // many) for k in range(many)]

        def highest(at: int, rows: slice) -> tuple[Tensor, Tensor]:
            network, own = networks[at]

            def tick(step: int) -> None:
                if progress is not None and alone:
                    progress(rows.start + (rows.stop - rows.start) * step // steps, len(x))

            def logits(moved: Weights, images: Tensor) -> Tensor:
                found: Tensor = functional_call(network, moved, (images,))
                return _scaled(found) if normalize_logits else found

            return highest_rise(logits, own, x[rows], y[rows], norm, rho, steps, tick)

        groups = []
        devices = devices_of(model)[: len(networks)]
        for rows, group in zip(slices, over_devices(devices, slices, highest), strict=True):
            groups.append(group)
            if progress is not None:
                progress(rows.stop, len(x))
        before, after = (torch.cat([group[at] for group in groups]) for at in range(2))
    return AdaptiveSharpness(
        **vars(rise(after[None], before, drawn=False)),
        groups=tuple(float((high - low).mean()) for low, high in groups),
        perturbed=(),
        notes=(*effective_notes(given, model), *idle_note(idle)),
    )


@checked
def adaptive_average(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    norm: WeightNorm = "l2",
    rho: float = 0.1,
    perturbations: int = 20,
    normalize_logits: bool = True,
    seed: int = 0,
    batch_size: BatchSize = "auto",
    progress: Progress | None = None,
) -> AdaptiveSharpness:
    """``E_d L(w + d) - L(w)`` with ``d = rho |w| g``, elementwise, over all parameters.

    ``g`` is standard normal (``l2``) or uniform in ``[-1, 1]`` (``linf``). Each perturbation holds
    for all examples. For small ``rho`` it is ``rho^2 / 2 sum_j w_j^2 H_jj`` times the variance of
    ``g``, one or one third.

    Args:
        model, x, y, normalize_logits, progress: as of :func:`adaptive_worst`.
        norm: which draws.
        rho: their size, relative to each weight.
        perturbations: number of draws.
        seed: of the draws.
        batch_size: images per pass on a GPU; no result depends on it beyond rounding.

    Returns:
        The mean rise in nats, with standard errors over examples and perturbations.

    Raises:
        UsageError: a radius that is not positive.
        NotMeasuredError: losses that are not finite, or a network without weights to perturb.

    Source: Andriushchenko et al., ICML 2023, and their code, where the radii of ``l2`` are
    0.05 to 0.4 and those of ``linf`` 0.1 to 0.8, with 20 draws.

    >>> net = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    >>> found = adaptive_average(net, torch.rand(5, 1, 2, 2), torch.zeros(5).long())
    >>> len(found.perturbed)
    20
    """
    _check_radius(rho)
    given, model = model, effective(model, x)
    labels = y.cpu()

    with frozen(model):
        weights, idle = _weights(model, x)

        def losses(moved: Weights) -> Tensor:
            logits = Runner(moved_to(model, [moved]), device_of(model), batch_size).logits(x)
            logits = _scaled(logits) if normalize_logits else logits
            return finite(cross_entropy(logits.cpu().double(), labels))

        before, rows = losses(weights), []
        for j in range(perturbations):
            draw = draw_for(seed, "adaptive average", j)
            moved = {name: w + rho * w.abs() * _drawn(w, norm, draw) for name, w in weights.items()}
            rows.append(losses(moved))
            if progress is not None:
                progress(j + 1, perturbations)
    made = torch.stack(rows)
    return AdaptiveSharpness(
        **vars(rise(made, before)),
        groups=(),
        perturbed=tuple(made.mean(1).tolist()),
        notes=(*effective_notes(given, model), *idle_note(idle)),
    )


def _check_radius(rho: float) -> None:
    if not 0 < rho < math.inf:
        raise UsageError(f"rho must be a positive number, not {rho:g}")


def _weights(model: nn.Module, x: Tensor) -> tuple[Weights, tuple[str, ...]]:
    """All parameters that a pass uses, and the names of the others."""
    idle = idle_parameters(model, x)
    weights = {
        name: parameter.detach()
        for name, parameter in model.named_parameters()
        if parameter.is_floating_point() and name not in idle
    }
    if not any(bool(weight.any()) for weight in weights.values()):
        raise NotMeasuredError("the network has no weights to perturb")
    return weights, idle


def _scaled(logits: Tensor) -> Tensor:
    """Centred logits of length one."""
    centred = logits - logits.mean(1, keepdim=True)
    size: Tensor = torch.linalg.vector_norm(centred, dim=1, keepdim=True)
    return centred / size.clamp_min(_SHORTEST)


def _drawn(weight: Tensor, norm: WeightNorm, draw: torch.Generator) -> Tensor:
    if norm == "l2":
        return torch.randn(weight.shape, generator=draw).to(weight)
    return (2 * torch.rand(weight.shape, generator=draw) - 1).to(weight)
