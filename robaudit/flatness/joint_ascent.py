"""Joint ascent on weights and inputs, which worst-case flatness uses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from robaudit.attacks.objectives import cross_entropy
from robaudit.engine import JustInside
from robaudit.engine.images import StoredImages, rows_of
from robaudit.engine.precision import arithmetic
from robaudit.engine.projections import Ball
from robaudit.engine.spilled import copied
from robaudit.flatness.losses import finite
from robaudit.flatness.perturbed import Perturbed
from robaudit.flatness.stacked import stack
from robaudit.flatness.weights import Kept, Weights
from robaudit.types import ThreatModel


@dataclass(frozen=True)
class RestartResult:
    """The result of one restart: mean loss, losses ``(n,)`` and weight perturbation."""

    mean: float
    losses: Tensor
    nu: Weights


@dataclass(frozen=True)
class JointAscent:
    """The settings that all restarts share.

    Attributes:
        x, y: on the network's device.
        threat: ``None`` if the inputs do not move.
        xi, weight_step: radius and step size, relative to each tensor's norm.
        passes: ascent steps, each a pass over all images.
        step: step size in the inputs.
        tile: images per pass through the network.
        keep_best: return each restart's best pass, its start included, instead of its last one.
        nudge: how far inside the box gradients are taken, see :mod:`robaudit.engine.edges`.
        kept: for pruned tensors, masks of the entries that are not pruned.
        beside: others run at the same time, whose losses must not be in TF32: it is a setting of
            the process, and stays as it is.
    """

    network: Perturbed
    weights: Weights
    x: Tensor
    y: Tensor
    threat: ThreatModel | None
    xi: float
    passes: int
    weight_step: float
    step: float
    tile: int
    keep_best: bool
    kept: Kept
    nudge: float = 0.0
    beside: bool = False

    def run(
        self, nus: Sequence[Weights], advs: Sequence[Tensor], tick: Callable[[int], None]
    ) -> list[RestartResult]:
        """Run several restarts together, from their weight perturbations and images.

        Raises:
            NotMeasuredError: losses that are not finite.
        """
        nu, adv = stack(nus), _side_by_side(advs)
        best: list[RestartResult] = []
        for done in range(self.passes + 1):
            found = self._pass(nu, adv, len(nus), last=done == self.passes)
            here = _results(found.losses, nu)
            if not best or not self.keep_best:
                best = here
            else:
                best = [max(pair, key=lambda c: c.mean) for pair in zip(best, here, strict=True)]
            if done < self.passes:
                tick(done + 1)
                adv, nu = found.moved, self._stepped(nu, found)
        return best

    def run_batch_by_batch(
        self,
        nus: Sequence[Weights],
        advs: Sequence[Tensor],
        batch: int,
        tick: Callable[[int], None],
    ) -> list[RestartResult]:
        """As :meth:`run`, with a step in the weights after each batch of images.

        One perturbation takes all steps; the losses are those of its last value. This is the
        procedure of the published code.

        Raises:
            NotMeasuredError: losses that are not finite.
        """
        nu, many = stack(nus), len(nus)
        parts = self.batches(batch)
        rows = list(torch.split(torch.stack(list(advs), 1).flatten(0, 1), batch * many))
        for done in range(self.passes):
            for at, part in enumerate(parts):
                found = part._pass(nu, rows[at], many, last=False)
                rows[at], nu = found.moved, part._stepped(nu, found)
            tick(done + 1)
        last = [
            part._pass(nu, row, many, last=True).losses
            for part, row in zip(parts, rows, strict=True)
        ]
        return _results(torch.cat(last), nu)

    def run_per_batch(
        self,
        nus: Sequence[Weights],
        advs: Sequence[Tensor],
        batch: int,
        tick: Callable[[int], None],
    ) -> list[RestartResult]:
        """As :meth:`run`, with separate weights for each batch; ``nu`` has the batches first.

        Raises:
            NotMeasuredError: losses that are not finite.
        """
        parts = self.batches(batch)

        def told(before: int) -> Callable[[int], None]:
            return lambda passed: tick((before * self.passes + passed) // len(parts))

        found = [
            part.run(nus, [adv[at * batch :][:batch] for adv in advs], told(at))
            for at, part in enumerate(parts)
        ]
        return [
            RestartResult(
                float(losses.mean()),
                losses,
                {name: torch.stack([one.nu[name] for one in results]) for name in results[0].nu},
            )
            for results in zip(*found, strict=True)
            for losses in [torch.cat([one.losses for one in results])]
        ]

    def batches(self, batch: int) -> list[JointAscent]:
        """The same settings for each batch of images, in their order."""
        pairs = zip(torch.split(self.x, batch), torch.split(self.y, batch), strict=True)
        return [replace(self, x=x, y=y) for x, y in pairs]

    def _stepped(self, nu: Weights, found: _Pass) -> Weights:
        return {name: self._moved(name, nu[name], found.gradients[name]) for name in nu}

    def _moved(self, name: str, nu: Tensor, gradients: Tensor) -> Tensor:
        """A step along the gradients, projected on the ball: ``(K, ...)`` each."""
        norm = self.weights[name].norm()
        stepped = nu + self.weight_step * norm * (gradients / _norms(gradients))
        shrunk: Tensor = stepped * (self.xi * norm / _norms(stepped)).clamp_max(1)
        return shrunk

    def _pass(self, nu: Weights, adv: Tensor, many: int, last: bool) -> _Pass:
        """Losses and gradients at ``nu``, ``(many, ...)`` each; moves ``adv`` by one step.

        Where the network is searched in another precision than float32 that one gives the
        gradients, and float32 the losses: bfloat16's numbers are farther apart than a usual
        perturbation is long, and the losses compare perturbations.

        Args:
            adv: row ``i many + k`` is image i of restart k.
            last: compute the losses only.
        """
        leaves = {name: (self.weights[name] + nu[name]).requires_grad_(not last) for name in nu}
        gradients = {name: torch.zeros_like(leaf) for name, leaf in leaves.items()}
        inputs = self.threat is not None and not last
        judged = self.network.precision != "fp32"
        losses = []

        def network(images: Tensor) -> Tensor:
            return self.network.logits_of_all(leaves, images)

        forward = JustInside(network, self.nudge) if self.nudge else network
        for start in range(0, len(self.x), self.tile):
            part = slice(start, start + self.tile)
            rows = slice(start * many, (start + self.tile) * many)
            labels = self.y[part].repeat_interleave(many)
            image = rows_of(adv, rows, self.y.device).detach().requires_grad_(inputs)
            apart = image.reshape(-1, many, *image.shape[1:])
            if judged:
                with torch.no_grad():
                    own = self.network.judged_logits(leaves, apart).flatten(0, 1)
                losses.append(cross_entropy(own, labels).double().reshape(-1, many))
                if last:
                    continue
            settings = nullcontext() if self.beside else arithmetic(self.network.precision)
            with torch.set_grad_enabled(not last), settings:
                logits = forward(apart)
                loss = cross_entropy(logits.flatten(0, 1), labels)
                if not judged:
                    losses.append(loss.detach().double().reshape(-1, many))
                if last:
                    continue
                wanted = [*leaves.values(), *([image] if inputs else [])]
                pieces = torch.autograd.grad(loss.sum(), wanted, materialize_grads=True)
            if self.threat is not None:
                clean = rows_of(self.x, part, self.y.device).repeat_interleave(many, 0)
                ball = Ball(clean, self.threat)
                adv[rows] = ball.step(image.detach(), pieces[-1], self.step)
            for name, piece in zip(leaves, pieces, strict=False):
                gradients[name] += piece * self.kept[name] if name in self.kept else piece
        return _Pass(torch.cat(losses), gradients, adv)


@dataclass(frozen=True)
class _Pass:
    """Losses ``(n, K)``, their gradient in the weights, and the next inputs."""

    losses: Tensor
    gradients: Weights
    moved: Tensor


def _side_by_side(advs: Sequence[Tensor]) -> Tensor:
    """The restarts' images as one new tensor: row ``i many + k`` is image i of restart k."""
    if len(advs) == 1 and isinstance(advs[0], StoredImages):
        return copied(advs[0])  # too many to be held
    return torch.stack(list(advs), 1).flatten(0, 1)


def _results(losses: Tensor, nu: Weights) -> list[RestartResult]:
    """The results of K restarts from their losses ``(n, K)`` at ``nu``, ``(K, ...)`` each."""
    return [
        RestartResult(float(row.mean()), row, {name: moved[k] for name, moved in nu.items()})
        for k, row in enumerate(finite(losses).T)
    ]


def _norms(tensors: Tensor) -> Tensor:
    """The norm of each of ``(K, ...)``, in a shape that broadcasts with them."""
    norms: Tensor = torch.linalg.vector_norm(tensors.flatten(1), dim=1)
    return norms.clamp_min(torch.finfo(tensors.dtype).tiny).reshape(-1, *[1] * (tensors.dim() - 1))
