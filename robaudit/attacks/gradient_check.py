"""Can gradients attack this network? Its derivative is checked before any attack relies on it."""

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
    Forward,
    along_lines,
    at_points,
    gradients_at,
    logits_at,
)
from robaudit.engine import device_of, frozen, generator, sighted
from robaudit.engine.logits import logits_of
from robaudit.engine.projections import Ball, random_start
from robaudit.errors import NotMeasuredError
from robaudit.types import ThreatModel

NO_GRADIENT = "the network's logits have no gradient in the image"

# Lines in the ball and points in it; lines between images; points at which differences are taken.
_LINES, _PAIRS, _POINTS = 16, 8, 4
_PIECES, _PIECES_BETWEEN = 4, 8
# The share of witnesses against a gradient that is believed, and the fewest that are listened to.
_AGAINST, _FEWEST = 0.25, 2
# Along its gradient a network that rounds may go five times as far as it says, or a fifth.
_UPHILL = 0.8
# Steps of a pixel; the first in float64, the others where that does not show a difference.
_STEPS = (2.0**-20, 2.0**-12, 2.0**-8)


@dataclass(frozen=True)
class GradientCheck:
    """What was seen; nothing where the gradient can be relied on.

    Attributes:
        problems: in words, the plainest first.
        faulty: the module whose derivative is wrong, where one is.
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
    """Hold a network's gradient in the image against what its logits do.

    On clean images and where PGD starts in the ball: are logits and gradients finite; do central
    differences in float64 agree with the gradient along random directions and its own; do the
    logits change along lines through the ball, and between images, by the gradient's integral? The
    first finds gradients that are another function's; the second also those that are right and lead
    nowhere, since the network moves by steps between which it is flat. A continuous network
    passes whatever its curvature, its kinks and the size of its logits, and one that is constant
    over the ball too. A cost of about five passes of 64 images.

    Args:
        model: images in [0, 1] to logits; run in evaluation mode and left as it was.
        x: images ``(n, c, h, w)``, of which the first 16 are used.
        index: ``(n,)`` the examples' places in their data set, which seed the points.

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
        _check_there(model, x[:1])
        problems = list(_problems(model, forward, x, index, threat, seed))
        faulty = None
        if problems:
            exact = _double(model, x) or model
            places = random_start(x, index, threat, seed, 0)[:4]
            with suppress(Exception, SystemExit):  # whatever a network does when it is taken apart
                faulty = find_faulty_module(exact, places, seed) or find_faulty_module(
                    exact, x[:4], seed
                )
    return GradientCheck(tuple(problems), faulty)


def _check_there(model: nn.Module, image: Tensor) -> None:
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
    fallen = {}
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
        fallen[where] = (gradient == 0).flatten(1).all(1)
    below, above = (
        Ball(x[rows], threat).step(start, side * gradient, threat.eps) for side in (-1, 1)
    )
    uphill = along_lines(forward, below, above, u, _PIECES, off=_UPHILL)
    zero = fallen["where attacks start"]
    dead = float(zero.float().mean()) > _AGAINST
    heard = [uphill] if _speak(uphill) else []
    if dead or (not heard and 2 * uphill.tested < _LINES):
        # Those along the gradient are what an attack follows, and have the word where they speak:
        # lines across are less certain where a network rounds.
        across = along_lines(forward, start, other, u, _PIECES)
        if dead and _speak(across):
            yield (
                "where attacks start the logits' gradient in the image is exactly zero for "
                f"{_share(zero)} of {len(zero)} images, and yet the logits move within the ball"
            )
            return
        if not heard and _speak(across):
            heard = [across]
    for found in heard:
        yield (
            f"within the ball the logits do not move as their gradient says: on {found.against}"
            f" of {found.tested} lines they move {_times(found)}"
        )
    differences = list(_differences(model, forward, x, start, lead, u, seed))
    yield from differences[-1:]
    pairs = _pairs(clean)
    if len(pairs) and not heard and not differences:
        a, b = pairs.unbind(1)
        between = along_lines(forward, x[a], x[b], _toward(clean, a, b), _PIECES_BETWEEN)
        if _speak(between):
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
        if _speak(found):
            kind = "float32" if double is None else "float64"
            yield (
                f"{where} the gradient is not the logits' derivative: on {found.against} of "
                f"{found.tested} directions central differences in {kind} are {_of(found)}"
            )


def _double(model: nn.Module, x: Tensor) -> nn.Module | None:
    """A copy in float64; none where it cannot be made, or is another network."""
    try:
        found = copy.deepcopy(model).double()
        with torch.no_grad():
            own, wide = model(x[:2]).double(), found(x[:2].double())
        if wide.dtype != torch.float64:
            return None
        off = float((own - wide).abs().max())
    except (Exception, SystemExit):  # whatever its code does with another type
        return None
    return found if off <= 1e-2 * float(own.abs().max()) else None


def _lead_weights(logits: Tensor) -> Tensor:
    """``u`` of each image: its largest logit less the second."""
    largest = logits.topk(2, dim=1).indices
    u = torch.zeros_like(logits, dtype=torch.float64)
    return u.scatter_(1, largest[:, :1], 1.0).scatter_(1, largest[:, 1:], -1.0)


def _pairs(logits: Tensor) -> Tensor:
    """Each image with the next that the network puts elsewhere, ``(pairs, 2)``."""
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


def _speak(found: Agreement) -> bool:
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
