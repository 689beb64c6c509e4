"""Several networks of one architecture, each with its own weights and images, in one pass."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeVar

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from robaudit.engine import Runner, uniform_rows
from robaudit.engine.logits import Forward, logits_of
from robaudit.engine.precision import Precision, arithmetic
from robaudit.engine.raised import is_foreign
from robaudit.engine.runner import BatchSize, PerImageObjective
from robaudit.engine.several import Movable, replica
from robaudit.errors import NotMeasuredError
from robaudit.flatness.weights import Weights

T = TypeVar("T")
StackSize = int | Literal["auto"]

# Largest allowed difference between stacked and single logits, relative to the largest logit;
# rounding in float32 changes them by about 1e-6. The others are those of the engine.
_ALLOWED: dict[Precision, float] = {"fp32": 1e-4, "tf32": 0.01, "bf16": 0.05}


def stack(networks: Sequence[Weights]) -> Weights:
    """The tensors of ``K`` networks as one ``(K, ...)`` each."""
    return {name: torch.stack([one[name] for one in networks]) for name in networks[0]}


def stacked_logits(network: nn.Module, tensors: Mapping[str, Tensor], x: Tensor) -> Tensor:
    """Logits ``(b, K, k)`` of images ``(b, K, c, h, w)``, differentiable in both arguments.

    Args:
        tensors: ``(K, ...)`` each, by name; tensors that are not named are shared.
    """

    def one(own: Mapping[str, Tensor], images: Tensor) -> Tensor:
        return logits_of(lambda z: functional_call(network, dict(own), (z,)), images)

    found: Tensor = vmap(one, in_dims=(0, 1), out_dims=1)(dict(tensors), x)
    return found


def moved_to(network: nn.Module, places: Sequence[Weights]) -> Forward:
    """The network with each of several sets of tensors, stacked if there is more than one."""
    many = len(places) > 1
    return _AtWeights(network, stack(places) if many else places[0], many)


class _AtWeights(Movable):
    def __init__(self, network: nn.Module, weights: Weights, many: bool) -> None:
        self.network, self._weights, self._many = network, weights, many

    def __call__(self, x: Tensor) -> Tensor:
        if self._many:
            return stacked_logits(self.network, self._weights, x)
        found: Tensor = functional_call(self.network, self._weights, (x,))
        return found

    def tensors(self) -> Iterable[Tensor]:
        return self._weights.values()

    def on(self, device: torch.device) -> Forward:
        weights = {name: tensor.to(device) for name, tensor in self._weights.items()}
        return _AtWeights(replica(self.network, device), weights, self._many)


def _inside(forward: Forward, images: Tensor) -> Tensor:
    return forward(images)


class StackedRunner(Runner):
    """Runs ``forward: (b, K, c, h, w) -> (b, K, k)``; row ``i K + j`` is image i of network j.

    A pass has ``K`` times the images of a :class:`Runner` of a single network, each of which is
    behind the door by itself.
    """

    door = staticmethod(_inside)

    def __init__(
        self,
        forward: Forward,
        many: int,
        device: torch.device,
        batch_size: BatchSize = "auto",
        *,
        precision: Precision = "fp32",
    ) -> None:
        super().__init__(forward, device, batch_size, precision=precision)
        self._many = many

    def logits(self, x: Tensor, used: int | None = None) -> Tensor:
        found = super().logits(self._apart(x), len(x) if used is None else used)
        return found.flatten(0, 1)

    def gradient(
        self, objective: PerImageObjective, x: Tensor, y: Tensor, used: int | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        def each(logits: Tensor, labels: Tensor) -> Tensor:
            rows = labels.repeat_interleave(self._many)
            return self._apart(objective(logits.flatten(0, 1), rows))

        found = super().gradient(
            each, self._apart(x), y[:: self._many], len(x) if used is None else used
        )
        values, gradient, logits = (part.flatten(0, 1) for part in found)
        return values, gradient, logits

    def _apart(self, rows: Tensor) -> Tensor:
        return rows.reshape(-1, self._many, *rows.shape[1:])


def refusal(
    network: nn.Module, tensors: Weights, shape: Sequence[int], precision: Precision = "fp32"
) -> str:
    """Why copies of a network cannot run stacked; empty if they can.

    Two copies, one with tensors a tenth smaller, must give the logits of each alone, and gradients.
    """
    pair = [tensors, {name: 0.9 * tensor for name, tensor in tensors.items()}]
    some = next(iter(tensors.values()))
    kind = torch.promote_types(some.dtype, torch.float32)
    x = uniform_rows(shape, torch.arange(4), 0, "stack").to(some.device, kind)
    x = x.reshape(2, 2, *shape)
    try:
        leaves = {name: tensor.requires_grad_() for name, tensor in stack(pair).items()}
        with torch.enable_grad(), arithmetic(precision):
            together = stacked_logits(network, leaves, x.requires_grad_())
            torch.autograd.grad(together.sum(), [x, *leaves.values()], allow_unused=True)
    except BaseException as error:
        if not (is_foreign(error) or isinstance(error, NotMeasuredError)):
            raise
        return f"in one pass with others it raises {type(error).__name__}"
    with torch.no_grad(), arithmetic(precision):
        alone = torch.stack(
            [functional_call(network, own, (x[:, j],)) for j, own in enumerate(pair)], 1
        )
    off = float((together.detach() - alone).abs().max() / alone.abs().max().clamp_min(1e-12))
    return (
        ""
        if off <= _ALLOWED[precision]
        else f"in one pass with others its logits differ by {off:.1g}"
    )


@dataclass
class Blocks:
    """Chooses how many networks run stacked.

    By default one on a CPU, where more are slower. On a GPU the first runs alone, and each block
    has twice the networks of the one before while the time per network falls and there is memory
    for twice as many. When memory runs out, the block is halved.

    Attributes:
        asked: the number of networks per block, instead of that.
        refusal: gives the reason why several cannot run stacked.
        notes: what did not work.
    """

    asked: StackSize
    device: torch.device
    refusal: Callable[[], str]
    notes: list[str] = field(default_factory=list)

    def over(self, count: int, run: Callable[[range], Sequence[T]]) -> Iterator[T]:
        """Yield the results of ``run`` on ``range(count)``, one block at a time and lazily."""
        size = 1 if self.asked == "auto" else self.asked
        growing = self.asked == "auto" and self.device.type == "cuda"
        if count > 1 and (growing or size > 1) and (reason := self.refusal()):
            self.notes.append(f"perturbed networks ran one at a time: {reason}")
            size, growing = 1, False
        begin, quickest = 0, math.inf
        while begin < count:
            block = range(begin, min(begin + size, count))
            found, share, peak = self._measured(block, run)
            if found is None:
                # Outside the except block, whose traceback would keep the tensors alive.
                torch.cuda.empty_cache()
                self.notes.append(
                    f"memory ran out with {len(block)} networks in a pass; they went on with "
                    f"{len(block) // 2}, which can change the last digits, not the method"
                )
                size, growing = len(block) // 2, False
                continue
            begin = block.stop
            if growing and share >= quickest:
                size, growing = size // 2, False
            elif growing and 2 * peak <= _room(self.device):
                size, quickest = 2 * size, share
            else:
                growing = False
            yield from found

    def _measured(
        self, block: range, run: Callable[[range], Sequence[T]]
    ) -> tuple[Sequence[T] | None, float, int]:
        """Results, or ``None`` if memory ran out; seconds per network, and peak bytes on a GPU."""
        on_gpu = self.device.type == "cuda"
        if on_gpu:
            torch.cuda.reset_peak_memory_stats(self.device)
        before = torch.cuda.memory_allocated(self.device) if on_gpu else 0
        start = time.perf_counter()
        try:
            found = run(block)  # the numbers come to the CPU: then the device is done
        except torch.cuda.OutOfMemoryError:
            if len(block) == 1:
                raise
            return None, 0, 0
        share = (time.perf_counter() - start) / len(block)
        peak = torch.cuda.max_memory_allocated(self.device) - before if on_gpu else 0
        return found, share, peak


def _room(device: torch.device) -> int:
    """Bytes that are free on the device, or cached by torch and unused."""
    free, _ = torch.cuda.mem_get_info(device)
    return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
