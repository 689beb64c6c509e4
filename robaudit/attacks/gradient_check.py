"""Checks a network's gradient in the image before attacks rely on it."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from robaudit.attacks.faulty_module import FaultyModule, find_faulty_module
from robaudit.attacks.gradient_tests import (
    Agreement,
    along_lines,
    at_points,
    gradients_at,
    logits_at,
)
from robaudit.engine import device_of, frozen, generator, sighted
from robaudit.engine.logits import Forward, logits_of
from robaudit.engine.projections import Ball, random_start
from robaudit.errors import NotMeasuredError
from robaudit.types import ThreatModel

NO_GRADIENT = "the network's logits have no gradient in the image"

# Lines in the ball and points in it; lines between images; points at which differences are taken.
_LINES, _PAIRS, _POINTS = 16, 8, 4
_PIECES, _PIECES_BETWEEN = 4, 8
# A gradient is wrong if more than this share of the tests contradict it, and at least so many.
_AGAINST, _FEWEST = 0.25, 2
# Along its gradient, a network that rounds may change five times as much as predicted, or a fifth.
_UPHILL = 0.8
# Step sizes in pixels: the first in float64, the others where that shows no difference.
_STEPS = (2.0**-20, 2.0**-12, 2.0**-8)


@dataclass(frozen=True)
class GradientCheck:
    """The result of :func:`check_gradients`.

    Attributes:
        problems: descriptions, the most direct evidence first; empty where none was found.
        faulty: the module whose derivative is wrong, where one was found.
    """

    problems: tuple[str, ...]
    faulty: FaultyModule | None = None


def check_gradients(
    model: nn.Module,
    x: Tensor,
    threat: ThreatModel,
    *,
    seed: int = 0,
    index: Tensor | None = None,
) -> GradientCheck:
    """Compare a network's gradient in the image with the changes of its logits.

    On clean images and on the starting points of PGD: are logits and gradients finite; do central
    differences in float64 agree with the gradient along random directions and its own; do the
    logits change along lines through the ball, and between images, by the gradient's integral?
    Central differences find gradients that are those of another function; lines also find correct
    gradients that are useless because the network is piecewise constant. A continuous network
    passes whatever its curvature, its kinks and the size of its logits, and so does one that is
    constant over the ball. The cost is about five passes of 64 images.

    Args:
        model: maps images in ``[0, 1]`` to logits ``(n, k)``; it runs in evaluation mode and is
            left as it was.
        x: images ``(n, c, h, w)``, of which the first 16 are used.
        threat: norm and radius of the attacks.
        seed: of the points and directions.
        index: ``(n,)`` the examples' positions in their data set, which seed the points.

    Returns:
        Problems in words, and the faulty module where one was found.

    Raises:
        NotMeasuredError: no gradient of the logits reaches the image, or the network raises.

    >>> net = nn.Sequential(nn.Flatten(), nn.Linear(16, 4))
    >>> check_gradients(net, torch.rand(8, 1, 4, 4), ThreatModel("linf", 0.1)).problems
    ()
    """
    x = x[:_LINES]
    index = torch.arange(len(x)) if index is None else index[: len(x)]
    with frozen(model):
        x = x.to(device_of(model))
        forward = sighted(model, x[:1])
        _require_gradient(model, x[:1])
        problems = list(_problems(model, forward, x, index, threat, seed))
        faulty = None
        if problems:
            exact = _double(model, x) or model
            places = random_start(x, index, threat, seed, 0)[:4]
            with suppress(Exception, SystemExit):  # a module may raise anything when it runs alone
                faulty = find_faulty_module(exact, places, seed) or find_faulty_module(
                    exact, x[:4], seed
                )
    return GradientCheck(tuple(problems), faulty)


def _require_gradient(model: nn.Module, image: Tensor) -> None:
    with torch.enable_grad():
        logits = logits_of(model, image.clone().requires_grad_())
    if not logits.requires_grad:
        raise NotMeasuredError(NO_GRADIENT, "Attack it without gradients: --attack square.")


def _problems(
    model: nn.Module, forward: Forward, x: Tensor, index: Tensor, threat: ThreatModel, seed: int
) -> Iterator[str]:
    clean = logits_at(forward, x)
    lead = _lead_weights(clean)
    rows = torch.arange(_LINES) % len(x)
    starts = [
        random_start(x, index, threat, seed, restart) for restart in range(2 * -(-_LINES // len(x)))
    ]
    start, other = (torch.cat(starts[k::2])[:_LINES] for k in (0, 1))
    u = lead[rows]
    zero_gradient = {}
    for where, places, weights in (("on clean images", x, lead), ("where attacks start", start, u)):
        gradient, logits = gradients_at(forward, places, weights)
        broken = ~logits.isfinite().all(1)
        if bool(broken.any()):
            yield (
                f"{where} the logits are not finite for {_share(broken)} of {len(places)} images"
            )
            return
        broken = ~gradient.flatten(1).isfinite().all(1)
        if bool(broken.any()):
            yield (
                f"{where} the gradient in the image is not finite for {_share(broken)} of "
                f"{len(places)} images"
            )
            return
        zero_gradient[where] = (gradient == 0).flatten(1).all(1)
    below, above = (
        Ball(x[rows], threat).step(start, side * gradient, threat.eps) for side in (-1, 1)
    )
    uphill = along_lines(forward, below, above, u, _PIECES, off=_UPHILL)
    zero = zero_gradient["where attacks start"]
    dead = float(zero.float().mean()) > _AGAINST
    found_wrong = [uphill] if _contradicts(uphill) else []
    if dead or (not found_wrong and 2 * uphill.tested < _LINES):
        # Lines along the gradient decide where they show something, because attacks follow them;
        # lines across are less certain where a network rounds.
        across = along_lines(forward, start, other, u, _PIECES)
        if dead and _contradicts(across):
            yield (
                "where attacks start the logits' gradient in the image is exactly zero for "
                f"{_share(zero)} of {len(zero)} images, and yet the logits move within the ball"
            )
            return
        if not found_wrong and _contradicts(across):
            found_wrong = [across]
    for found in found_wrong:
        yield (
            f"within the ball the logits do not move as their gradient says: on {found.against}"
            f" of {found.tested} lines they move {_times(found)}"
        )
    differences = list(_differences(model, forward, x, start, lead, u, seed))
    yield from differences[-1:]
    pairs = _pairs(clean)
    if len(pairs) and not found_wrong and not differences:
        a, b = pairs.unbind(1)
        between = along_lines(forward, x[a], x[b], _toward(clean, a, b), _PIECES_BETWEEN)
        if _contradicts(between):
            yield (
                "between images the logits change by steps that no gradient shows: on "
                f"{between.against} of {between.tested} lines they move {_times(between)}"
            )


def _differences(
    model: nn.Module, forward: Forward, x: Tensor, start: Tensor, lead: Tensor, u: Tensor, seed: int
) -> Iterator[str]:
    double = _double(model, x)
    exact, steps = (forward, _STEPS[2:]) if double is None else (double, _STEPS)
    draw = generator(seed, "central differences")
    shape = (min(_POINTS, len(x)), *x.shape[1:])
    for where, places, weights in (("on clean images", x, lead), ("where attacks start", start, u)):
        signs = (torch.randint(2, shape, generator=draw) * 2 - 1).to(x)
        inside = places[: len(signs)].clamp(steps[0], 1 - steps[0])
        found = at_points(forward, exact, inside, weights[: len(signs)], signs, steps)
        if _contradicts(found):
            kind = "float32" if double is None else "float64"
            yield (
                f"{where} the gradient is not the logits' derivative: on {found.against} of "
                f"{found.tested} directions central differences in {kind} are {_of(found)}"
            )


def _double(model: nn.Module, x: Tensor) -> nn.Module | None:
    """A copy in float64; ``None`` where it cannot be made or computes something else."""
    try:
        found = copy.deepcopy(model).double()
        with torch.no_grad():
            own, wide = model(x[:2]).double(), found(x[:2].double())
        if wide.dtype != torch.float64:
            return None
        off = float((own - wide).abs().max())
    except (Exception, SystemExit):  # its code may not support another type
        return None
    return found if off <= 1e-2 * float(own.abs().max()) else None


def _lead_weights(logits: Tensor) -> Tensor:
    """``u`` for each image: its largest logit minus the second."""
    largest = logits.topk(2, dim=1).indices
    u = torch.zeros_like(logits, dtype=torch.float64)
    return u.scatter_(1, largest[:, :1], 1.0).scatter_(1, largest[:, 1:], -1.0)


def _pairs(logits: Tensor) -> Tensor:
    """Each image with the next one that the network classifies differently, ``(pairs, 2)``."""
    said = logits.argmax(1).tolist()
    n = len(said)
    found = []
    for i in range(n):
        others = [(i + k) % n for k in range(1, n) if said[(i + k) % n] != said[i]]
        found += [(i, others[0])] if others else []
    return torch.tensor(found[:_PAIRS], dtype=torch.long)


def _toward(logits: Tensor, a: Tensor, b: Tensor) -> Tensor:
    said = logits.argmax(1)
    own = torch.nn.functional.one_hot(said, logits.shape[1]).double()
    return own[b] - own[a]


def _contradicts(found: Agreement) -> bool:
    return found.against >= _FEWEST and found.share > _AGAINST


def _times(found: Agreement) -> str:
    ratio = abs(found.ratio)
    if ratio > 1e6:
        return "although it says that they do not"
    if found.ratio < 0 and 0.3 < ratio < 3:
        return "the other way"
    return f"{ratio:.2g} times as far" + (", the other way" if found.ratio < 0 else "")


def _of(found: Agreement) -> str:
    if abs(found.ratio) > 1e6:
        return "not zero where it is"
    return f"{found.ratio:.2g} times what it says"


def _share(which: Tensor) -> str:
    return f"{float(which.float().mean()):.0%}"
