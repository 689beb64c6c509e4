"""The loss whose flatness is measured: robust, or clean."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from robaudit.attacks.objectives import cross_entropy, rising_cross_entropy
from robaudit.attacks.pgd import pgd
from robaudit.attacks.result import AttackResult
from robaudit.engine import TILE, Runner
from robaudit.engine.ascent import ascend_from
from robaudit.engine.captured import Captured
from robaudit.engine.images import rows_of
from robaudit.engine.logits import Forward
from robaudit.engine.precision import Asked, Precision
from robaudit.engine.projections import Ball, per_image, random_start
from robaudit.engine.runner import BatchSize
from robaudit.engine.spilled import copied
from robaudit.errors import NotMeasuredError
from robaudit.flatness.stacked import StackedRunner
from robaudit.types import Progress, ThreatModel

# Several tiles of images this small fit into the caches, and passes over them take a tenth less
# time, with the same results bit for bit.
_SMALL, _TILES = 1024, 4

# Bytes of images and starts that are kept on the device from one network to the next.
_KEPT = 1 << 28

# How far a search's rises from the clean image to the worst point may be off, relative to these:
# twice as far as the engine lets bfloat16 be off in what perturbations change, as the worst point
# is chosen by the search. A part of the losses is added, for networks that hardly change.
_OFF = 0.1
_OFF_LOSSES = 1e-3


_TOO_COARSE = (
    "adversarial examples were searched in float32: in a faster arithmetic the losses of a "
    "perturbed network were not its own"
)
T = TypeVar("T")


class ImpreciseSearchError(Exception):
    """A search whose losses are not the networks'."""


def searched_well(measure: Callable[[Asked, tuple[str, ...]], T], precision: Asked) -> T:
    """What ``measure`` gives in a precision, or in float32 where that one is too coarse.

    All networks are searched again then: a reference that was attacked in another arithmetic than
    the perturbed networks would shift what is compared with it.

    Args:
        measure: takes the precision, and notes on it.
    """
    try:
        return measure(precision, ())
    except ImpreciseSearchError:
        return measure("fp32", (_TOO_COARSE,))


class _Placed(NamedTuple):
    """Images, labels and each restart's starts of some examples, on the device."""

    x: Tensor
    y: Tensor
    starts: tuple[Tensor, ...]


@dataclass(frozen=True)
class RobustLoss:
    """Each example's highest cross-entropy under PGD, always from the same random starts.

    Attributes:
        x, y: images ``(n, c, h, w)`` and labels ``(n,)``.
        threat: ``None`` for the cross-entropy of the clean images.
        steps, step, seed: of PGD.
        index: ``(n,)`` the examples' positions in their data set, which seed their starts.
        precision: of the networks that are searched. The losses are always float32's: where the
            search is not in float32, those of :meth:`of_all`'s judges at the points that it found.
        backoffs: sizes of passes, in images of one network, in which memory ran out.
    """

    x: Tensor
    y: Tensor
    threat: ThreatModel | None
    steps: int
    step: float
    seed: int
    index: Tensor | None
    device: torch.device
    batch_size: BatchSize
    precision: Precision = "fp32"
    backoffs: list[int] = field(default_factory=list)
    _kept: dict[tuple[int, int, int], _Placed] = field(default_factory=dict, init=False)
    _captured: dict[tuple[int, Precision], Captured] = field(default_factory=dict, init=False)

    def runner(self, forward: Forward, many: int = 1, precision: Precision = "fp32") -> Runner:
        """A runner of a network, or of ``many`` stacked ones, on the examples' device."""
        how = self.device, self.batch_size
        if many == 1:
            found = Runner(self._recorded(forward, precision), *how, precision=precision)
        else:
            found = StackedRunner(forward, many, *how, precision=precision)
        if self.device.type == "cpu":
            found.batch = self.tile
        found.backoffs = self.backoffs
        return found

    def _recorded(self, forward: Forward, precision: Precision) -> Forward | Captured:
        """A module's recorded passes, which hold for all weights that are written into it."""
        if not isinstance(forward, nn.Module):
            return forward
        key = id(forward), precision  # the module is kept, and its id with it
        if key not in self._captured:
            self._captured[key] = Captured(forward, self.device, precision)
        return self._captured[key]

    @property
    def notes(self) -> list[str]:
        """A note if memory ran out and passes were made smaller."""
        if not self.backoffs:
            return []
        return [
            f"memory ran out in passes of {max(self.backoffs)} images; smaller ones went on, which "
            "can change the last digits, not the method: give a smaller --batch-size to begin with"
        ]

    @property
    def tile(self) -> int:
        """Images per pass on a CPU."""
        small = self.device.type == "cpu" and self.x[0].numel() <= _SMALL
        return _TILES * TILE if small else TILE

    def same_search(self, reference: AttackResult | None) -> AttackResult | None:
        """The reference, if it was searched as the perturbed networks are."""
        if reference is None or self.threat is None or reference.searched == self.precision:
            return reference
        return None

    def reference(
        self,
        model: nn.Module,
        restarts: int = 1,
        progress: Progress | None = None,
        search: Forward | None = None,
    ) -> AttackResult:
        """The losses of the unperturbed network and its adversarial examples.

        Args:
            search: the form of the network that is searched, where ``precision`` is not float32.

        Raises:
            NotMeasuredError: losses that are not finite.
            ImpreciseSearchError: the network's losses are not those of the search.
        """
        runner = self.runner(model)
        if self.threat is not None:
            if search is not None and self.precision != "fp32":
                return self._searched(model, search, restarts, progress)
            return pgd(
                runner,
                self.x,
                self.y,
                self.threat,
                steps=self.steps,
                step_size=self.step,
                restarts=restarts,
                seed=self.seed,
                index=self.index,
                progress=progress,
            )
        logits = runner.logits(self.x).cpu()
        losses = cross_entropy(logits, self.y.cpu())
        if not bool(losses.isfinite().all()):
            raise NotMeasuredError("the network's logits are not finite on some images")
        right = logits.argmax(1) == self.y.cpu()
        if progress is not None:
            progress(len(self.x), len(self.x))
        return AttackResult(self.x, losses, right, right, len(self.x), 0)

    def _searched(
        self, model: nn.Module, search: Forward, restarts: int, progress: Progress | None
    ) -> AttackResult:
        """The reference by the search that the perturbed networks get."""
        adv, y, many = copied(self.x), self.y.cpu(), len(self.x) * restarts
        (losses,) = self.of_all(search, 1, restarts, progress, (model,), adv)
        runner = self.runner(model)
        clean, met = (runner.logits(points).argmax(1).cpu() == y for points in (self.x, adv))
        return AttackResult(
            adv,
            finite(losses),
            clean & met,
            clean,
            many * (self.steps + 1),
            many * self.steps,
            searched=self.precision,
        )

    def of(
        self,
        forward: Forward,
        restarts: int = 1,
        progress: Progress | None = None,
        judges: Sequence[Forward] = (),
    ) -> Tensor:
        """The losses of a network, ``(n,)`` on the CPU.

        Bit for bit the ``loss`` of :func:`robaudit.attacks.pgd`; nothing else is recorded.

        Args:
            judges: as in :meth:`of_all`.

        Raises:
            NotMeasuredError: losses that are not finite.
            ImpreciseSearchError: as in :meth:`of_all`.
        """
        (found,) = self.of_all(forward, 1, restarts, progress, judges)
        return finite(found)

    def of_all(
        self,
        forward: Forward,
        many: int,
        restarts: int = 1,
        progress: Progress | None = None,
        judges: Sequence[Forward] = (),
        found: Tensor | None = None,
    ) -> Tensor:
        """The losses of ``many`` networks, ``(many, n)`` on the CPU, finite or not.

        Several networks run in one pass, each with its own adversarial examples from the same
        starts; up to rounding, the losses are those of each network alone.

        Args:
            forward: ``(b, c, h, w)`` to ``(b, k)``; for several networks ``(b, K, c, h, w)`` to
                ``(b, K, k)``.
            judges: the networks in float32, where ``forward`` computes in another precision. An
                example's loss is then theirs at the point with the highest loss of the search, or
                at the clean image if that is higher.
            found: where the points that the search found are written, of one network with a judge.

        Raises:
            ImpreciseSearchError: the judges' losses are not those of the search.
        """
        runner = self.runner(forward, many, self.precision if judges else "fp32")
        restarts = restarts if self.threat is not None else 0
        total, done = len(self.x) * (restarts * (self.steps + 1) or 1), 0

        def tick(passed: int) -> None:
            nonlocal done
            done += passed
            if progress is not None:
                progress(done, total)

        rows = []
        for begin in range(0, len(self.x), runner.per_round):
            part = slice(begin, begin + runner.per_round)
            placed = self._placed(part, restarts)
            losses, best = self._highest(runner, judges, placed, many, tick)
            rows.append(losses.reshape(len(losses), -1, many).transpose(1, 2))
            if found is not None:
                found[part] = best.cpu()
        if progress is not None:
            progress(total, total)
        whole = torch.cat(rows, 2)
        if judges:
            self._check(*whole)
        return whole[0]

    def _placed(self, part: slice, restarts: int) -> _Placed:
        """Some of the examples on the device, kept for the next network if they are few."""
        key = part.start, part.stop, restarts
        if key in self._kept:
            return self._kept[key]
        x, y = rows_of(self.x, part, self.device), self.y[part].to(self.device)
        index = torch.arange(len(self.x)) if self.index is None else self.index
        starts = [
            random_start(x, index[part], self.threat, self.seed, restart)
            for restart in range(restarts)
            if self.threat is not None
        ]
        found = _Placed(x, y, tuple(starts))
        if 4 * self.x.numel() * (1 + restarts) <= _KEPT:
            self._kept[key] = found
        return found

    def _highest(
        self,
        runner: Runner,
        judges: Sequence[Forward],
        placed: _Placed,
        many: int,
        tick: Callable[[int], None],
    ) -> tuple[Tensor, Tensor]:
        """The losses of one pass, ``(1, b)`` on the CPU, and with judges the points found.

        Row ``i many + j`` is image i in network j. With judges there are two more rows: the rises
        from the clean images, of the search and of the judges.
        """
        images = placed.x.repeat_interleave(many, 0)
        labels = placed.y.repeat_interleave(many)
        highest = clean = cross_entropy(runner.logits(images), labels)
        if self.threat is None:
            return highest[None].cpu(), images
        ball, best = Ball(images, self.threat), images

        def record(adv: Tensor, _: Tensor, logits: Tensor, __: Tensor | None) -> None:
            nonlocal highest, best
            values = cross_entropy(logits, labels)
            if judges:
                best = torch.where(per_image(adv, values > highest), adv, best)
            highest = torch.maximum(highest, values)
            tick(len(placed.x))

        for start in placed.starts:
            ascend_from(
                start.repeat_interleave(many, 0),
                labels,
                runner,
                rising_cross_entropy,
                ball,
                self.step,
                self.steps,
                record,
            )
        if not judges:
            return highest[None].cpu(), images
        own = torch.empty(2, *highest.shape, device=highest.device)
        for k, judge in enumerate(judges):
            network, rows = self.runner(judge), slice(k, None, many)
            for values, points in zip(own, (images, best), strict=True):
                values[rows] = cross_entropy(network.logits(points[rows]), labels[rows])
        before, after = own
        three = torch.maximum(before, after), highest - clean, after - before
        return torch.stack(three).cpu(), best

    def _check(self, losses: Tensor, searched: Tensor, judged: Tensor) -> None:
        """Hold the search to account: ``(many, n)`` losses and rises from the clean images.

        Raises:
            ImpreciseSearchError: its rises are not the networks'.
        """
        off, size = (searched - judged).norm(dim=1), judged.norm(dim=1)
        allowed = _OFF * size + _OFF_LOSSES * losses.norm(dim=1)
        if bool((off > allowed).any()):  # not where a loss is not finite, which is refused later
            raise ImpreciseSearchError


def finite(losses: Tensor) -> Tensor:
    """The losses, if all are finite.

    Raises:
        NotMeasuredError: some are not.
    """
    if not bool(losses.isfinite().all()):
        raise NotMeasuredError("the perturbed network's losses are not finite")
    return losses
