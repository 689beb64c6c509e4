"""Slices of the loss in weight space: clean and robust, along lines and over planes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TypedDict, Unpack

import torch
from torch import Tensor, nn

from robaudit.brief import brief
from robaudit.engine import device_of, effective, effective_notes, frozen
from robaudit.engine.arguments import checked
from robaudit.engine.precision import Asked, Precision, candidates, coarsest
from robaudit.engine.runner import BatchSize
from robaudit.errors import NotMeasuredError, UsageError
from robaudit.flatness.families import Family
from robaudit.flatness.losses import RobustLoss, searched_well
from robaudit.flatness.perturbed import Perturbed
from robaudit.flatness.stacked import Blocks, StackSize, moved_to, refusal
from robaudit.flatness.weights import Weights
from robaudit.protocols import step_of
from robaudit.types import Progress, ThreatModel, share_of


@dataclass(frozen=True)
class Adversary:
    """How the robust loss is found at a point.

    Attributes:
        steps, step_size, restarts, seed: of PGD; ``eps / 4`` is the step unless given.
        fixed: use the adversarial examples of the network at the origin everywhere, which
            underestimates the loss away from it. By default they are computed anew at every point,
            from the same random starts.
    """

    steps: int = 20
    step_size: float | None = None
    restarts: int = 1
    seed: int = 0
    fixed: bool = False


@dataclass(frozen=True)
class Slice:
    """Losses along lines through weight space, of every example.

    Attributes:
        s: ``(p,)`` the places.
        clean, robust: ``(r, p, n)`` float64, by line, place and example.
        notes: why passes were smaller than intended.
        searched: the arithmetic of the searches for adversarial examples; losses are float32's.
    """

    s: Tensor
    clean: Tensor
    robust: Tensor
    notes: tuple[str, ...] = ()
    searched: Precision = "fp32"

    __repr__ = brief


@dataclass(frozen=True)
class Surface:
    """Losses over a plane, of every example.

    Attributes:
        s, t: ``(p,)`` and ``(q,)`` the places along both axes.
        clean, robust: ``(q, p, n)`` float64; ``robust`` is ``None`` in input space.
        notes, searched: as of :class:`Slice`.
    """

    s: Tensor
    t: Tensor
    clean: Tensor
    robust: Tensor | None
    notes: tuple[str, ...] = ()
    searched: Precision = "fp32"

    __repr__ = brief


def symmetric_places(points: int, reach: float = 1.0) -> Tensor:
    """``points`` places from ``-reach`` to ``reach``, the middle one 0.

    Args:
        points: an odd number, at least 3.
        reach: the last place, a positive number.

    Returns:
        ``(points,)`` float64.

    Raises:
        UsageError: too few points, an even number, or a reach that is not positive.

    >>> symmetric_places(5, 0.5).tolist()
    [-0.5, -0.25, 0.0, 0.25, 0.5]
    """
    _check_points(points)
    if not 0 < reach < math.inf:
        raise UsageError(f"the range of a landscape must be a positive number, not {reach:g}")
    half = points // 2
    return torch.tensor([reach * k / half for k in range(-half, half + 1)], dtype=torch.float64)


def places_between(points: int) -> Tensor:
    """``points`` places around ``[0, 1]``, equally far beyond both ends; 0 and 1 are among them.

    Args:
        points: an odd number, at least 3.

    Returns:
        ``(points,)`` float64.

    Raises:
        UsageError: too few points, or an even number.

    >>> places_between(5).tolist()
    [-0.5, 0.0, 0.5, 1.0, 1.5]
    """
    _check_points(points)
    inside = 2 * math.ceil((points - 1) / 4)
    beyond = (points - 1 - inside) // 2
    return torch.tensor([(k - beyond) / inside for k in range(points)], dtype=torch.float64)


class How(TypedDict, total=False):
    """How losses are found along lines and over planes."""

    adversary: Adversary
    index: Tensor | None
    precision: Asked
    batch_size: BatchSize
    stack: StackSize
    progress: Progress | None


@checked
def landscape(
    model: nn.Module,
    lines: Sequence[Family],
    s: Tensor,
    x: Tensor,
    y: Tensor,
    threat: ThreatModel,
    *,
    adversary: Adversary | None = None,
    index: Tensor | None = None,
    precision: Asked = "auto",
    batch_size: BatchSize = "auto",
    stack: StackSize = "auto",
    progress: Progress | None = None,
) -> Slice:
    """The clean and the robust loss along each of several lines, ``L(w + s nu)``.

    Args:
        model: maps images in ``[0, 1]`` to logits ``(n, k)``; it runs in evaluation mode and its
            parameters are left as they were.
        lines: one-dimensional families of weights: :func:`around` the model in one direction, or
            :func:`between` two networks.
        s: ``(p,)`` places on each line.
        x, y: images ``(n, c, h, w)`` in ``[0, 1]`` and labels ``(n,)`` from 0.
        threat: of the robust loss.
        adversary: how the robust loss is found; PGD with 20 steps unless given.
        index: ``(n,)`` the examples' positions in their data set, which seed their starting points;
            ``0..n-1`` unless given.
        precision: of the searches for adversarial examples, as in
            :func:`robaudit.engine.accelerate`; the losses are float32's. A ``fixed`` adversary's
            are in float32.
        batch_size: images per pass on a GPU; no result depends on it beyond rounding.
        stack: networks per pass; ``auto`` is one on a CPU, and on a GPU the fastest number for
            which there is memory. No result depends on it beyond rounding.
        progress: called with the work done and the work in all.

    Returns:
        The losses of every example, in nats.

    Raises:
        NotMeasuredError: a loss that is not finite.

    Source: Stutz, Hein & Schiele, "Relating adversarially robust generalization to flat minima",
    ICCV 2021, sec. 3.2 and Fig. 4.

    >>> from robaudit.flatness import around, random_direction
    >>> net, x = nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), torch.rand(3, 1, 2, 2)
    >>> line, threat = around(net, random_direction(net)), ThreatModel("linf", 0.1)
    >>> found = landscape(net, [line], symmetric_places(3), x, torch.zeros(3).long(), threat)
    >>> found.robust.shape, bool((found.robust >= found.clean).all())
    (torch.Size([1, 3, 3]), True)
    """
    how = adversary or Adversary()
    given, model = model, effective(model, x)
    device, step = device_of(model), step_of("default", threat, how.step_size)
    places = [(line, value) for line in lines for value in s.tolist()]
    n = len(x)
    work = n * (len(places) + how.fixed)
    origin = lines[0]([0.0])

    def measured(asked: Asked, coarse: tuple[str, ...]) -> Slice:
        faster: Perturbed | None = None
        if coarsest(candidates(asked, device)) != "fp32":
            faster = Perturbed(
                model, origin, x.shape[1:], asked, examples=x, threat=threat, fold=False
            )
            faster = None if faster.precision == "fp32" else faster
        searched: Precision = "fp32" if faster is None else faster.precision
        common = step, how.seed, index, device, batch_size, searched
        robust = RobustLoss(x, y, threat, how.steps, *common)
        clean = replace(robust, threat=None)
        if how.fixed:
            kept = robust.reference(model, how.restarts, share_of(progress, 0, n, work)).x
            robust = replace(clean, x=kept)

        def at(block: range) -> list[tuple[Tensor, Tensor]]:
            networks = [line([value]) for line, value in places[block.start : block.stop]]
            forward, many = moved_to(model, networks), len(networks)
            bar = share_of(progress, n * (how.fixed + block.start), n * many, work)
            search, judges = forward, []
            if faster is not None:
                search = faster.placed(*networks)
                judges = [moved_to(model, [one]) for one in networks]
            harder = robust.of_all(search, many, how.restarts, bar, judges)
            return list(zip(clean.of_all(forward, many), harder, strict=True))

        def refused() -> str:
            return faster.refusal() if faster else refusal(model, origin, x.shape[1:])

        blocks = Blocks(stack, device, refused)
        rows = []
        for (_, value), pair in zip(places, blocks.over(len(places), at), strict=True):
            if not all(bool(losses.isfinite().all()) for losses in pair):
                raise NotMeasuredError(
                    f"the loss at {value:g} is not finite", "Take a smaller --range."
                )
            rows.append(torch.stack(pair).double())
        found = torch.stack(rows, 1).reshape(2, len(lines), len(s), len(x))
        notes = *effective_notes(given, model), *coarse, *blocks.notes, *robust.notes
        return Slice(s, found[0], found[1], notes, searched)

    with frozen(model):
        return searched_well(measured, "fp32" if how.fixed else precision)


@checked
def landscape_plane(
    model: nn.Module,
    plane: Family,
    s: Tensor,
    t: Tensor,
    x: Tensor,
    y: Tensor,
    threat: ThreatModel,
    **how: Unpack[How],
) -> Surface:
    """The clean and the robust loss over a plane of weights, ``L(w + s nu_1 + t nu_2)``.

    Args:
        model: maps images in ``[0, 1]`` to logits ``(n, k)``; it runs in evaluation mode and its
            parameters are left as they were.
        plane: a two-dimensional family of weights: :func:`around` the model in two directions, or
            :func:`between` three networks.
        s, t: ``(p,)`` and ``(q,)`` places along the two axes.
        x, y: images ``(n, c, h, w)`` in ``[0, 1]`` and labels ``(n,)`` from 0.
        threat: of the robust loss.
        how: ``adversary``, ``index``, ``precision``, ``batch_size``, ``stack`` and ``progress``
            as in :func:`landscape`.

    Returns:
        The losses of every example, in nats.

    Raises:
        NotMeasuredError: a loss that is not finite.

    Source: as of :func:`landscape`.

    >>> from robaudit.flatness import around, random_direction
    >>> net, x = nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), torch.rand(3, 1, 2, 2)
    >>> plane = around(net, random_direction(net), random_direction(net, which=1))
    >>> s, y, threat = symmetric_places(3), torch.zeros(3).long(), ThreatModel("linf", 0.1)
    >>> landscape_plane(net, plane, s, s[:2], x, y, threat).clean.shape
    torch.Size([2, 3, 3])
    """
    lines = [partial(_row, plane, second) for second in t.tolist()]
    found = landscape(model, lines, s, x, y, threat, **how)
    return Surface(s, t, found.clean, found.robust, found.notes, found.searched)


def _row(plane: Family, second: float, place: Sequence[float]) -> Weights:
    return plane([*place, second])


def mean_and_error(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard error over examples, the last dimension.

    Args:
        rows: ``(..., n)`` losses.

    Returns:
        Two tensors ``(...)``; the standard error of a single example is ``nan``.

    >>> mean_and_error(torch.tensor([[1.0, 3.0]]))
    (tensor([2.]), tensor([1.]))
    """
    n = rows.shape[-1]
    error = rows.std(-1) / math.sqrt(n) if n > 1 else torch.full_like(rows[..., 0], math.nan)
    return rows.mean(-1), error


def _check_points(points: int) -> None:
    if points < 3 or points % 2 == 0:
        raise UsageError(
            f"a landscape needs an odd number of points, 3 at least, not {points}",
            "Then the network itself is among them.",
        )
