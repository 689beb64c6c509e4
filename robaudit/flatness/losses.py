"""The loss whose flatness is measured: robust, or clean."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import torch
from torch import Tensor, nn

from robaudit.attacks.objectives import cross_entropy, rising_cross_entropy
from robaudit.attacks.pgd import pgd
from robaudit.attacks.result import AttackResult
from robaudit.engine import TILE, Runner
from robaudit.engine.ascent import ascend_from
from robaudit.engine.images import rows_of
from robaudit.engine.logits import Forward
from robaudit.engine.precision import Asked, Precision
from robaudit.engine.projections import Ball, per_image, random_start
from robaudit.engine.runner import BatchSize
from robaudit.errors import NotMeasuredError
from robaudit.flatness.stacked import StackedRunner
from robaudit.types import Progress, ThreatModel

# Several tiles of images this small fit into the caches, and passes over them take a tenth less
# time, with the same results bit for bit.
_SMALL, _TILES = 1024, 4

# How far a search's rises from the clean image to the worst point may be off, relative to these:
# as far as the engine lets a form in that arithmetic be off in what perturbations change. A part of
# the losses is added, for networks that perturbations hardly change.
_OFF: dict[Precision, float] = {"fp32": 0.01, "tf32": 0.05, "bf16": 0.1}
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

    def runner(self, forward: Forward, many: int = 1, precision: Precision = "fp32") -> Runner:
        """A runner of a network, or of ``many`` stacked ones, on the examples' device."""
        how = self.device, self.batch_size
        if many == 1:
            found = Runner(forward, *how, precision=precision)
        else:
            found = StackedRunner(forward, many, *how, precision=precision)
        if self.device.type == "cpu":
            found.batch = self.tile
        found.backoffs = self.backoffs
        return found

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
            ImpreciseSearchError: it was not searched in ``precision``.
        """
        runner = self.runner(model)
        if self.threat is not None:
            searcher = None
            if search is not None and self.precision != "fp32":
                searcher = self.runner(search, 1, self.precision)
            found = pgd(
                runner,
                self.x,
                self.y,
                self.threat,
                steps=self.steps,
                step_size=self.step,
                restarts=restarts,
                seed=self.seed,
                index=self.index,
                searcher=searcher,
                progress=progress,
            )
            if found.searched != self.precision:
                raise ImpreciseSearchError
            return found
        logits = runner.logits(self.x).cpu()
        losses = cross_entropy(logits, self.y.cpu())
        if not bool(losses.isfinite().all()):
            raise NotMeasuredError("the network's logits are not finite on some images")
        right = logits.argmax(1) == self.y.cpu()
        if progress is not None:
            progress(len(self.x), len(self.x))
        return AttackResult(self.x, losses, right, right, len(self.x), 0)

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

        Raises:
            ImpreciseSearchError: the judges' losses are not those of the search.
        """
        runner = self.runner(forward, many, self.precision if judges else "fp32")
        index = torch.arange(len(self.x)) if self.index is None else self.index
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
            x, y = rows_of(self.x, part, self.device), self.y[part].to(self.device)
            found = self._highest(runner, judges, x, y, index[part], many, restarts, tick)
            rows.append(found.reshape(len(found), -1, many).transpose(1, 2))
        if progress is not None:
            progress(total, total)
        whole = torch.cat(rows, 2)
        if judges:
            self._check(*whole)
        return whole[0]

    def _highest(
        self,
        runner: Runner,
        judges: Sequence[Forward],
        x: Tensor,
        y: Tensor,
        index: Tensor,
        many: int,
        restarts: int,
        tick: Callable[[int], None],
    ) -> Tensor:
        """The losses of one pass, ``(1, b)`` on the CPU; ``i many + j`` is image i in network j.

        With judges also the rises from the clean images, of the search and of the judges.
        """
        images, labels = x.repeat_interleave(many, 0), y.repeat_interleave(many)
        highest = clean = cross_entropy(runner.logits(images), labels)
        if self.threat is None:
            return highest[None].cpu()
        ball, best = Ball(images, self.threat), images

        def record(adv: Tensor, _: Tensor, logits: Tensor, __: Tensor | None) -> None:
            nonlocal highest, best
            values = cross_entropy(logits, labels)
            if judges:
                best = torch.where(per_image(adv, values > highest), adv, best)
            highest = torch.maximum(highest, values)
            tick(len(x))

        for restart in range(restarts):
            start = random_start(x, index, self.threat, self.seed, restart)
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
            return highest[None].cpu()
        own = torch.empty(2, *highest.shape, device=highest.device)
        for k, judge in enumerate(judges):
            runner, rows = self.runner(judge), slice(k, None, many)
            for values, points in zip(own, (images, best), strict=True):
                values[rows] = cross_entropy(runner.logits(points[rows]), labels[rows])
        before, after = own
        found = torch.maximum(before, after), highest - clean, after - before
        return torch.stack(found).cpu()

    def _check(self, losses: Tensor, searched: Tensor, judged: Tensor) -> None:
        """Hold the search to account: ``(many, n)`` losses and rises from the clean images.

        Raises:
            ImpreciseSearchError: its rises are not the networks'.
        """
        off, size = (searched - judged).norm(dim=1), judged.norm(dim=1)
        allowed = _OFF[self.precision] * size + _OFF_LOSSES * losses.norm(dim=1)
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
