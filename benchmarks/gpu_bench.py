"""What the rows of ``gpu.py`` share: the network and its images, a line of the table, seconds."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from networks import cifar
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

import robaudit as ra
from robaudit.checkpoints import samples_dir
from robaudit.types import Examples, ThreatModel


@dataclass(frozen=True)
class Flops:
    """Of one image: forward, and back from the logits to the image.

    A multiplication and an addition count as one each, as in the peaks of data sheets.
    """

    forward: float
    backward: float

    def of(self, forwards: float, backwards: float) -> float:
        return forwards * self.forward + backwards * self.backward


@dataclass(frozen=True)
class Line:
    """One comparison.

    Attributes:
        seconds: robaudit's.
        peer_seconds: ``None`` where there is no peer, or it is not installed.
        target: the largest ratio of the two that is good.
        images: how many passed in ``seconds``, for images a second.
        work: floating-point operations in ``seconds``, for the share of the card's peak in bf16.
        share: the least share of it that is good.
        limit: the most seconds that are good.
    """

    what: str
    seconds: float
    peer: str = ""
    peer_seconds: float | None = None
    target: float | None = None
    images: float = 0
    work: float = 0
    share: float | None = None
    limit: float | None = None
    notes: tuple[str, ...] = ()

    @property
    def ratio(self) -> float | None:
        return None if self.peer_seconds is None else self.seconds / self.peer_seconds


@dataclass
class Bench:
    """What the rows run on; ``known`` is what one row leaves for the next.

    Attributes:
        autoattacked, flattened: the number of images of AutoAttack's rows and of flatness'.
        passes: batches of the rows of passes, by network.
    """

    name: str
    device: torch.device
    model: nn.Module
    examples: Examples
    threat: ThreatModel
    flops: Flops
    smoke: bool
    autoattacked: int
    flattened: int
    passes: dict[str, int]
    known: dict[str, Any] = field(default_factory=dict)

    def first(self, n: int) -> Examples:
        e = self.examples
        return replace(e, x=e.x[:n], y=e.y[:n], index=e.index[:n])

    def timed(self, run: Callable[[], Any], repeats: int = 1) -> tuple[float, Any]:
        """The median seconds of some runs, and what the last one gives."""
        spent = []
        for _ in range(1 if self.smoke else repeats):
            self._wait()
            start = time.perf_counter()
            found = run()
            self._wait()
            spent.append(time.perf_counter() - start)
        return statistics.median(spent), found

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def clean_up(self) -> None:
        self.model.requires_grad_(False)
        if self.device.type == "cuda":
            torch.cuda.empty_cache()


@dataclass(frozen=True)
class Row:
    """Attributes:
    budget: seconds after which it is stopped.
    least: seconds that have to be left for it to begin.
    """

    name: str
    run: Callable[[Bench], Iterator[Line]]
    budget: float
    least: float = 20


def prepared(device: torch.device, folder: Path | None) -> Bench:
    """The network and its images; without a folder, a sample on a few digits."""
    if folder is None:
        model = ra.load(samples_dir() / "standard.pt", device=str(device))
        found, threat = ra.load_examples("digits", n=8), ThreatModel("linf", 0.3)
        name, sizes = "digits", (4, 4, {"ResNet-18": 4, "WideResNet-28-10": 2})
    else:
        file = folder / "checkpoints" / "preact_resnet18_cifar10_linf8.pt"
        model = ra.load(
            file, arch="preact_resnet(depth=18)", normalize="cifar10-moments", device=str(device)
        )
        x, y = cifar(folder, 1017)
        index = torch.arange(len(x))
        found = Examples(x=x, y=y, index=index, name="cifar10", split="test", sha256="first 1017")
        threat, name = ThreatModel("linf", 8 / 255), "PreAct-ResNet-18"
        sizes = (512, 512, {"ResNet-18": 1024, "WideResNet-28-10": 256})
    model.eval().requires_grad_(False)
    flops = counted(model, found.x[:1].to(device))
    return Bench(name, device, model, found, threat, flops, folder is None, *sizes)


def counted(model: nn.Module, image: Tensor) -> Flops:
    with FlopCounterMode(display=False) as forth:
        leaf = image.clone().requires_grad_()
        logits = model(leaf)
    with FlopCounterMode(display=False) as back:
        torch.autograd.grad(logits.sum(), leaf)
    return Flops(forth.get_total_flops(), back.get_total_flops())


def cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(logits, y, reduction="none")


def absent(package: str) -> str:
    return f"{package} is not installed" if find_spec(package.lower()) is None else ""
