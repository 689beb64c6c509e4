"""Several devices: copies of a network, and work that is shared out among threads, one a device.

Work is done in rounds of one piece a device, and results keep the order of the pieces. Pieces are
cut before they are shared out, so that a result does not depend on who computed it.
"""

from __future__ import annotations

import copy
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cache, partial
from itertools import islice
from typing import TypeVar
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from robaudit.engine.acceleration import difference
from robaudit.engine.captured import Captured
from robaudit.engine.device import devices_of
from robaudit.engine.effective import detached
from robaudit.engine.logits import Forward
from robaudit.engine.raised import recurs
from robaudit.engine.voting import Voted, same_logits, seeded
from robaudit.errors import error_line

T = TypeVar("T")
R = TypeVar("R")

# Images on which a copy is compared with its network.
_FEW = 8


class Movable(ABC):
    """A function of images: a network together with tensors of its own, such as other weights."""

    network: nn.Module

    @abstractmethod
    def __call__(self, x: Tensor) -> Tensor:
        """The logits."""

    @abstractmethod
    def tensors(self) -> Iterable[Tensor]:
        """Its own."""

    @abstractmethod
    def on(self, device: torch.device) -> Forward:
        """The same function on a device, to run beside this one."""


def devices_behind(forward: Forward, first: torch.device) -> tuple[torch.device, ...]:
    """The devices that share the passes of a function of images which runs on ``first``."""
    network = _network(forward)
    found = (first,) if network is None else devices_of(network)
    return found if found[0].type == first.type else (first,)


def replica(model: nn.Module, device: torch.device) -> nn.Module:
    """A frozen copy on a device."""
    return copy.deepcopy(model, detached(model)).to(device).requires_grad_(False)


@dataclass
class _Copies:
    """Copies of a function, and the state in which it was copied: tensors and their versions."""

    others: list[Forward]
    refusal: str
    state: list[tuple[int, int]]


_copies: WeakKeyDictionary[Forward, _Copies] = WeakKeyDictionary()
_beside: WeakKeyDictionary[Captured, list[Captured]] = WeakKeyDictionary()


def on_devices(
    network: Captured, devices: Sequence[torch.device], images: Tensor
) -> tuple[list[Captured], str]:
    """The network on each device, the first one itself; or it alone, and why.

    Copies are made once, and follow when weights or buffers change. Each must give the network's
    logits on a few images: bit for bit on a CPU, on a GPU up to the rounding of its arithmetic.

    Args:
        images: on the first device.
    """
    forward = network.forward
    state = [(id(tensor), _version(tensor)) for tensor in _tensors(forward)]
    known = _copies.get(forward)
    if known is None or not (
        len(known.others) in (0, len(devices) - 1)
        and (known.state == state or _follow(forward, known, state))
    ):
        others, refusal = _copied(network, devices[1:], images[:_FEW])
        known = _copies[forward] = _Copies(others, refusal, state)
    beside = _beside.get(network, [])
    if [one.forward for one in beside] != known.others:
        beside = [
            network.beside(other, device)
            for other, device in zip(known.others, devices[1:], strict=bool(known.others))
        ]
        _beside[network] = beside
    return [network, *beside], known.refusal


def replicas(model: nn.Module, images: Tensor) -> list[nn.Module]:
    """The model on each of its devices, itself first; or it alone, if copies are not the same.

    Args:
        images: some of them are compared.
    """
    devices = devices_of(model)
    if len(devices) == 1:
        return [model]
    few = images[:_FEW].to(devices[0])
    found, _ = on_devices(Captured(model, devices[0]), devices, few)
    return [one.forward for one in found if isinstance(one.forward, nn.Module)]


def _follow(forward: Forward, known: _Copies, state: list[tuple[int, int]]) -> bool:
    """Write what has changed in a module's tensors into its copies; not if there are others."""
    if not isinstance(forward, nn.Module) or [at for at, _ in state] != [
        at for at, _ in known.state
    ]:
        return False
    changed = [before != now for before, now in zip(known.state, state, strict=True)]
    with torch.no_grad():
        for other in known.others:
            pairs = zip(_tensors(forward), _tensors(other), strict=True)
            for (own, theirs), new in zip(pairs, changed, strict=True):
                if new:
                    theirs.copy_(own)
    known.state = state
    return True


def _copied(
    network: Captured, devices: Sequence[torch.device], images: Tensor
) -> tuple[list[Forward], str]:
    forward, inner = network.forward, _network(network.forward)
    assert inner is not None
    why = "one device is used: "
    if any(isinstance(module, Voted) for module in inner.modules()):
        return [], f"{why}the network draws at random"
    try:
        with torch.no_grad(), seeded(0, images.device):
            logits = network.logits(images)
            if not same_logits(logits, network.logits(images)):
                return [], f"{why}the network's passes of the same images differ"
            others: list[Forward] = []
            for device in devices:
                one = forward.on(device) if isinstance(forward, Movable) else replica(inner, device)
                found = network.beside(one, device).logits(images.to(device)).to(logits.device)
                rounds = difference((logits, None), (found, None), network.precision) == ""
                if not (same_logits(logits, found) or (device.type != "cpu" and rounds)):
                    return [], f"{why}a copy of the network on {device} gives other logits"
                others.append(one)
    except BaseException as error:
        if not (recurs(error) or isinstance(error, TypeError)):
            raise
        return [], f"{why}copying the network raises {error_line(error)}"
    return others, ""


def _network(forward: Forward) -> nn.Module | None:
    if isinstance(forward, nn.Module):
        return forward
    return forward.network if isinstance(forward, Movable) else None


def _tensors(forward: Forward) -> Iterator[Tensor]:
    network = _network(forward)
    if network is not None:
        yield from network.parameters()
        yield from network.buffers()
    if isinstance(forward, Movable):
        yield from forward.tensors()


def _version(tensor: Tensor) -> int:
    """Changes whenever the tensor is written to, except in inference mode."""
    return 0 if tensor.is_inference() else tensor._version


def over_devices(
    devices: Sequence[torch.device], pieces: Iterable[T], run: Callable[[int, T], R]
) -> Iterator[R]:
    """Yield ``run(at, piece)`` for each piece in order, ``at`` the position of its device.

    The pieces of a round are taken before it begins; the first device's is done by the caller's
    thread. An exception is raised when the round has ended, of several that of the first piece.
    """
    rest = iter(pieces)
    while some := list(islice(rest, len(devices))):
        yield from _at_once(devices, [partial(run, at, piece) for at, piece in enumerate(some)])


def _at_once(devices: Sequence[torch.device], work: Sequence[Callable[[], R]]) -> list[R]:
    if len(work) == 1:
        return [work[0]()]
    alike = _as_here(devices[0].type)
    futures = [
        _worker(os.getpid(), at).submit(alike, devices[at], work[at]) for at in range(1, len(work))
    ]
    try:
        first = work[0]()
    finally:
        wait(futures)
    return [first, *(future.result() for future in futures)]


@cache
def _worker(process: int, at: int) -> ThreadPoolExecutor:
    """The thread of a device, always the same; another in a process that was forked."""
    return ThreadPoolExecutor(1, thread_name_prefix=f"robaudit device {at}")


def _as_here(kind: str) -> Callable[[torch.device, Callable[[], R]], R]:
    """Does work on a device in a thread that is then as the caller's.

    It has what torch keeps for each thread; TF32 and the like are settings of the process.
    """
    threads, gradients = torch.get_num_threads(), torch.is_grad_enabled()
    autocast, rounded = torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)

    def run(device: torch.device, work: Callable[[], R]) -> R:
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
        with (
            torch.cuda.device(device) if kind == "cuda" else nullcontext(),
            torch.set_grad_enabled(gradients),
            torch.autocast(kind, rounded, enabled=autocast),
        ):
            return work()

    return run
