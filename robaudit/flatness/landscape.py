"""Slices of the loss in weight space: clean and robust, along lines and over planes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call

from robaudit.attacks.objectives import cross_entropy
from robaudit.attacks.pgd import pgd_with
from robaudit.attacks.result import Attacked
from robaudit.engine import Runner, device_of, frozen
from robaudit.engine.runner import BatchSize
from robaudit.errors import NotMeasuredError, UsageError
from robaudit.flatness.families import Family
from robaudit.flatness.weights import Weights
from robaudit.types import Progress, ThreatModel


@dataclass(frozen=True)
class Adversary:
    """How the robust loss is found at a point.

    Attributes:
        steps, step_size, restarts, seed: of PGD; ``eps / 4`` is the step unless given.
        fixed: keep the examples of the network at the origin. The loss is then underestimated away
            from it; by default they are made anew at every point, from the same random starts.
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
    """

    s: Tensor
    clean: Tensor
    robust: Tensor


@dataclass(frozen=True)
class Surface:
    """Losses over a plane, of every example.

    Attributes:
        s, t: ``(p,)`` and ``(q,)`` the places along both axes.
        clean, robust: ``(q, p, n)`` float64; ``robust`` is ``None`` in input space.
    """

    s: Tensor
    t: Tensor
    clean: Tensor
    robust: Tensor | None


def symmetric_places(points: int, reach: float = 1.0) -> Tensor:
    """``points`` places from ``-reach`` to ``reach``, the middle one 0.

    Raises:
        UsageError: too few, an even number, or a reach that is no positive number.
    """
    _check_points(points)
    if not 0 < reach < math.inf:
        raise UsageError(f"the range of a landscape must be a positive number, not {reach:g}")
    half = points // 2
    return torch.tensor([reach * k / half for k in range(-half, half + 1)], dtype=torch.float64)


def places_between(points: int) -> Tensor:
    """``points`` places around ``[0, 1]``, as far beyond one end as the other; 0 and 1 among them.

    Raises:
        UsageError: too few, or an even number.

    >>> places_between(5).tolist()
    [-0.5, 0.0, 0.5, 1.0, 1.5]
    """
    _check_points(points)
    inside = 2 * math.ceil((points - 1) / 4)
    beyond = (points - 1 - inside) // 2
    return torch.tensor([(k - beyond) / inside for k in range(points)], dtype=torch.float64)


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
    batch_size: BatchSize = "auto",
    progress: Progress | None = None,
) -> Slice:
    """The loss along each of several lines, ``L(w + s nu)``, clean and robust.

    Args:
        lines: one-dimensional families: :func:`around` one direction, or :func:`between` two
            networks.
        s: ``(p,)`` places.

    Raises:
        NotMeasuredError: a loss that is not finite.

    Source: Stutz, Hein & Schiele, "Relating adversarially robust generalization to flat minima",
    ICCV 2021, sec. 3.2 and Fig. 4.
    """
    places = [[value] for value in s.tolist()]
    point = _Evaluator(model, x, y, threat, adversary or Adversary(), index, batch_size)
    with frozen(model):
        rows = point.over([(line, place) for line in lines for place in places], lines[0], progress)
    clean, robust = (part.reshape(len(lines), len(places), len(x)) for part in rows)
    return Slice(s, clean, robust)


def landscape_plane(
    model: nn.Module,
    plane: Family,
    s: Tensor,
    t: Tensor,
    x: Tensor,
    y: Tensor,
    threat: ThreatModel,
    *,
    adversary: Adversary | None = None,
    index: Tensor | None = None,
    batch_size: BatchSize = "auto",
    progress: Progress | None = None,
) -> Surface:
    """The loss over a two-dimensional family; otherwise as :func:`landscape`."""
    places = [[a, b] for b in t.tolist() for a in s.tolist()]
    point = _Evaluator(model, x, y, threat, adversary or Adversary(), index, batch_size)
    with frozen(model):
        rows = point.over([(plane, place) for place in places], plane, progress)
    clean, robust = (part.reshape(len(t), len(s), len(x)) for part in rows)
    return Surface(s, t, clean, robust)


def mean_and_error(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Mean over examples, the last dimension, and its standard error (``nan`` for one example)."""
    n = rows.shape[-1]
    error = rows.std(-1) / math.sqrt(n) if n > 1 else torch.full_like(rows[..., 0], math.nan)
    return rows.mean(-1), error


@dataclass(frozen=True)
class _Evaluator:
    model: nn.Module
    x: Tensor
    y: Tensor
    threat: ThreatModel
    adversary: Adversary
    index: Tensor | None
    batch_size: BatchSize

    def over(
        self,
        places: Sequence[tuple[Family, Sequence[float]]],
        origin: Family,
        progress: Progress | None,
    ) -> tuple[Tensor, Tensor]:
        """Clean and robust losses ``(places, n)``."""
        count = len(places) + self.adversary.fixed
        kept = None
        if self.adversary.fixed:
            start = [0.0] * len(places[0][1])
            kept = self._attacked(origin(start), _share(progress, 0, count)).x
        rows = []
        for turn, (family, place) in enumerate(places, start=self.adversary.fixed):
            tensors = family(place)
            clean = self._loss(tensors, self.x)
            if kept is None:
                robust = self._attacked(tensors, _share(progress, turn, count)).loss.double()
            else:
                robust = self._loss(tensors, kept)
            if not (torch.isfinite(clean).all() and torch.isfinite(robust).all()):
                where = ", ".join(f"{value:g}" for value in place)
                raise NotMeasuredError(
                    f"the loss at ({where}) is not finite", "Take a smaller --range."
                )
            rows.append((clean, robust))
            if progress is not None:
                progress(turn + 1, count)
        return torch.stack([clean for clean, _ in rows]), torch.stack([rob for _, rob in rows])

    def _loss(self, tensors: Weights, images: Tensor) -> Tensor:
        logits = self._runner(tensors).logits(images).cpu()
        return cross_entropy(logits, self.y.cpu()).double()

    def _attacked(self, tensors: Weights, progress: Progress | None) -> Attacked:
        how = self.adversary
        return pgd_with(
            self._runner(tensors), self.x, self.y, self.threat, steps=how.steps,
            step_size=how.step_size, restarts=how.restarts, seed=how.seed, index=self.index,
            progress=progress,
        )  # fmt: skip

    def _runner(self, tensors: Weights) -> Runner:
        return Runner(_network(self.model, tensors), device_of(self.model), self.batch_size)


def _network(model: nn.Module, tensors: Weights) -> Callable[[Tensor], Tensor]:
    def forward(images: Tensor) -> Tensor:
        logits: Tensor = functional_call(model, tensors, (images,))
        return logits

    return forward


def _share(progress: Progress | None, turn: int, count: int) -> Progress | None:
    """Of a bar for ``count`` equal pieces of work, the piece that is the ``turn``-th."""
    if progress is None:
        return None
    return lambda done, total: progress(turn * total + done, count * total)


def _check_points(points: int) -> None:
    if points < 3 or points % 2 == 0:
        raise UsageError(
            f"a landscape needs an odd number of points, 3 at least, not {points}",
            "Then the network itself is among them.",
        )
