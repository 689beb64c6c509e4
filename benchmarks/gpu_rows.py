"""The rows of ``gpu.py``: each runs robaudit and a peer on the same images."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import flatness
import torch
from networks import cifar
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

import robaudit as ra
from robaudit.attacks.verification import verify
from robaudit.audit import Plan, audit, preset
from robaudit.audit.probes import AutoAttack, Fast
from robaudit.checkpoints import samples_dir
from robaudit.checkpoints.architectures.residual_families import wide_resnet
from robaudit.engine import Runner, accelerate, frozen
from robaudit.engine.captured import Captured
from robaudit.engine.precision import default_precision
from robaudit.types import Examples, ThreatModel


@dataclass(frozen=True)
class Flops:
    """Of one image: forward, and back from the logits to the image. An addition counts as one."""

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


# Passes


def passes(bench: Bench) -> Iterator[Line]:
    """Input gradients: the plain network, and its forms as searches run them."""
    networks: dict[str, nn.Module] = {"ResNet-18": bench.model}
    if not bench.smoke:
        torch.manual_seed(0)
        wide = wide_resnet(28, 10).to(bench.device).eval().requires_grad_(False)
        networks["WideResNet-28-10"] = wide
    for name, model in networks.items():
        yield from _passes(bench, name, model, bench.passes[name])


def _passes(bench: Bench, name: str, model: nn.Module, n: int) -> Iterator[Line]:
    found = bench.examples
    x = found.x.repeat(-(-n // len(found.x)), 1, 1, 1)[:n].to(bench.device)
    y = found.y.repeat(-(-n // len(found.y)))[:n].to(bench.device)
    flops, repeats = counted(model, x[:1]), 2 if bench.smoke else 20

    def plain() -> None:
        leaf = x.detach().requires_grad_()
        torch.autograd.grad(cross_entropy(model(leaf), y).sum(), leaf)

    def many(run: Callable[[], object]) -> Callable[[], None]:
        return lambda: [run() for _ in range(repeats)] and None

    with default_precision():
        many(plain)()
        base, _ = bench.timed(many(plain), 3)
    work = {"images": n * repeats, "work": repeats * n * flops.of(1, 1)}
    yield Line(f"{name} at {n}, PyTorch's defaults", base, **work)
    with frozen(model):
        form = accelerate(model, x.shape[1:], examples=x, threat=bench.threat)
        for compiled in (False, True):
            if compiled and bench.device.type != "cuda":
                continue
            network = Captured(form.forward, bench.device, form.precision, compiled=compiled)
            runner = Runner(network, bench.device, batch_size=n)
            step = partial(runner.gradient, cross_entropy, x, y)
            many(step)()
            spent, _ = bench.timed(many(step), 3)
            words = f"{name} at {n}, searching{', compiled' if compiled else ''}"
            notes = (f"{form.precision}; {', '.join(form.used)}", *form.notes, *network.notes)
            least = 0.35 if compiled else None
            yield Line(words, spent, "the plain", base, share=least, notes=notes, **work)


# Ensembles


def autoattack(bench: Bench) -> Iterator[Line]:
    """Native AutoAttack against the library alone; verdicts and breaks checked."""
    some, notes = bench.first(bench.autoattacked), []
    theirs = _library_alone(bench, some)
    ours, done = bench.timed(lambda: _audited(bench, some, AutoAttack(engine="native")))
    robust = done.outcomes["test.accuracy.autoattack"].bool()
    bench.known["native"] = ours, robust
    notes.append(_confirmed(bench, some, done))
    if theirs is not None:
        notes.append(_compared(robust, theirs[1], "the library"))
    spent = done.report.get("accuracy.autoattack").details
    line = Line(
        f"native AutoAttack, {len(some)} images",
        ours,
        "pyautoattack" if theirs else absent("pyautoattack"),
        theirs[0] if theirs else None,
        target=0.15,
        images=len(some),
        work=bench.flops.of(spent["forwards"], spent["backwards"]),
        notes=(*notes, f"searched in {done.report.provenance.precision}"),
    )
    yield line
    again, _ = bench.timed(lambda: _audited(bench, some, AutoAttack(engine="native")))
    yield replace(line, what="the same once more", seconds=again, target=None, notes=())


def library(bench: Bench) -> Iterator[Line]:
    """The library through robaudit, which is to be no slower than alone."""
    some = bench.first(bench.autoattacked)
    theirs = _library_alone(bench, some)
    if theirs is None:
        yield Line("the library through robaudit", 0.0, absent("pyautoattack"))
        return
    ours, done = bench.timed(lambda: _audited(bench, some, AutoAttack()))
    robust = done.outcomes["test.accuracy.autoattack"].bool()
    notes = _compared(robust, theirs[1], "the library alone"), _confirmed(bench, some, done)
    yield Line(
        "the library through robaudit", ours, "alone", theirs[0], 1.0, len(some), notes=notes
    )


def fast(bench: Bench) -> Iterator[Line]:
    """The fast tier against native AutoAttack."""
    some = bench.first(bench.autoattacked)
    _audited(bench, bench.first(4), Fast())
    ours, done = bench.timed(lambda: _audited(bench, some, Fast()))
    robust = done.outcomes["test.accuracy.fast"].bool()
    base, verdicts = bench.known.get("native", (None, None))
    notes = [_confirmed(bench, some, done)]
    if verdicts is not None:
        above = 100 * float(robust.double().mean() - verdicts.double().mean())
        notes.append(f"{above:+.2f} points from native AutoAttack (target: at most +0.30)")
    yield Line("fast", ours, "native AutoAttack", base, 0.05, len(some), notes=tuple(notes))


def _library_alone(bench: Bench, some: Examples) -> tuple[float, Tensor] | None:
    """Seconds and which images stand."""
    if absent("pyautoattack"):
        return None
    if "alone" not in bench.known:
        from pyautoattack import AutoAttack as Library

        x, y = some.x.to(bench.device), some.y.to(bench.device)
        norm = bench.threat.norm.capitalize()
        attack = Library(
            bench.model, norm=norm, eps=bench.threat.eps, seed=0, version="standard",
            device=str(bench.device),
        )  # fmt: skip
        with default_precision():
            bench.model(x[:1])
            spent, found = bench.timed(lambda: attack.run_standard_evaluation(x, y, batch_size=250))
        bench.known["alone"] = spent, (found[1] == y).cpu()
    return bench.known["alone"]


def _audited(bench: Bench, some: Examples, *probes: Any) -> Any:
    return audit(bench.model, some, bench.threat, Plan(n=len(some), probes=probes))


def _compared(ours: Tensor, theirs: Tensor, whose: str) -> str:
    apart = (ours != theirs).nonzero()[:, 0].tolist()
    named = f", images {', '.join(map(str, apart[:12]))}" if apart else ""
    shares = [f"{100 * float(robust.double().mean()):.2f} %" for robust in (ours, theirs)]
    counted = f"{len(apart)} of {len(ours)} verdicts differ{named}"
    return f"{counted}; accuracy {shares[0]}, {whose} {shares[1]}"


def _confirmed(bench: Bench, some: Examples, done: Any) -> str:
    """Whether the network in float32 is broken by each image that counts as a break."""
    (name,) = (n for n in done.outcomes if n.startswith("test.accuracy.") and "clean" not in n)
    fell = done.outcomes["test.accuracy.clean"].bool() & ~done.outcomes[name].bool()
    checked = verify(bench.model, some.x, done.adversarial.x, some.y, bench.threat).breaks
    wrong = int((fell & ~checked).sum())
    return (
        f"{int(fell.sum())} breaks, "
        + ("each" if not wrong else f"{wrong} NOT")
        + (" confirmed in float32")
    )


# PGD, curvature, flatness, a whole audit


def pgd(bench: Bench) -> Iterator[Line]:
    x, y = bench.examples.x, bench.examples.y
    base = None
    if not absent("torchattacks"):
        import torchattacks

        bench.model.requires_grad_(True)  # as its users have it
        attack = torchattacks.PGD(
            bench.model, eps=bench.threat.eps, alpha=bench.threat.eps / 4, steps=20
        )

        def theirs() -> float:
            right = 0
            for a, b in zip(x.split(256), y.split(256), strict=True):
                a, b = a.to(bench.device), b.to(bench.device)
                right += int((bench.model(attack(a, b)).argmax(1) == b).sum())
            return right / len(x)

        with default_precision():
            theirs()
            base, share = bench.timed(theirs, 3)
        bench.model.requires_grad_(False)
    for mode, target in (("loss", 0.5), ("accuracy", 0.25)):
        run = partial(ra.attacks.pgd, bench.model, x, y, bench.threat, steps=20, mode=mode)
        run()
        ours, found = bench.timed(run, 3)
        notes = [f"accuracy {100 * float(found.robust.double().mean()):.2f} %"]
        if base is not None:
            notes.append(f"torchattacks' {100 * share:.2f} %, of last iterates")
        yield Line(
            f"PGD-20, {len(x)} images, {mode} mode", ours,
            "torchattacks" if base else absent("torchattacks"), base, target, len(x),
            bench.flops.of(found.forwards, found.backwards), notes=tuple(notes),
        )  # fmt: skip


def traces(bench: Bench) -> Iterator[Line]:
    some = bench.first(1000)
    x, y = some.x.to(bench.device), some.y.to(bench.device)
    run = partial(ra.curvature.wci, bench.model, some.x, some.y, precision="auto")
    run()
    ours, found = bench.timed(run, 3)
    notes = [f"total trace {found.traces.total:.3f}, WCI {found.value:.3f}"]
    base = None
    if not absent("PyHessian"):
        peer = _pyhessian(bench, x, y)
        with default_precision():
            base, probes = bench.timed(peer.trace)
        bench.model.zero_grad(set_to_none=True)
        notes.append(f"PyHessian's {statistics.fmean(probes):.3f} after {len(probes)} probes")
    yield Line(
        f"exact traces and WCI, {len(x)} images", ours,
        "PyHessian's trace" if base else absent("PyHessian"), base, 0.05, notes=tuple(notes),
    )  # fmt: skip


def eigenvalue(bench: Bench) -> Iterator[Line]:
    some = bench.first(1000)
    x, y = some.x.to(bench.device), some.y.to(bench.device)
    run = partial(ra.curvature.largest_eigenvalue, bench.model, some.x, some.y, tolerance=1e-3)
    ours, found = bench.timed(run)
    off = found.residual / abs(found.value)
    notes, base = [f"{found.value:.4f}, residual {off:.1e} of it"], None
    if not absent("PyHessian"):
        peer = _pyhessian(bench, x, y)
        with default_precision():
            base, theirs = bench.timed(lambda: peer.eigenvalues(tol=1e-3)[0][0])
        bench.model.zero_grad(set_to_none=True)
        notes.append(f"PyHessian's {theirs:.4f}, without a residual")
    yield Line(
        f"largest eigenvalue to 1e-3, {len(x)} images", ours,
        "PyHessian's" if base else absent("PyHessian"), base, 0.5, notes=tuple(notes),
    )  # fmt: skip


def _pyhessian(bench: Bench, x: Tensor, y: Tensor) -> Any:
    from pyhessian import hessian

    torch.manual_seed(0)
    bench.model.requires_grad_(True)
    cuda = bench.device.type == "cuda"
    return hessian(bench.model, nn.CrossEntropyLoss(), data=(x, y), cuda=cuda)


def average(bench: Bench) -> Iterator[Line]:
    some, draws = bench.first(bench.flattened), 2 if bench.smoke else 10
    x, y = some.x.to(bench.device), some.y.to(bench.device)
    reference = ra.attacks.pgd(bench.model, some.x, some.y, bench.threat, steps=1)
    plain = partial(flatness.plain_average, bench.model, x, y, bench.threat)
    with default_precision():
        base, want = bench.timed(lambda: plain(draws, True))
    ours, found = bench.timed(
        lambda: ra.flatness.average(
            bench.model, some.x, some.y, bench.threat, perturbations=draws, steps=flatness.STEPS,
            reference=reference,
        )
    )  # fmt: skip
    apart = max(abs(a - b) / abs(b) for a, b in zip(found.perturbed, want, strict=True))
    notes = (f"robust losses differ by {apart:.1e} at most; searched in {found.searched}",)
    yield Line(
        f"average flatness, {len(x)} images, {draws} draws", ours, "plain loop", base, 0.3,
        notes=notes,
    )  # fmt: skip


def standard(bench: Bench) -> Iterator[Line]:
    """The whole audit that ``robaudit audit --preset standard`` runs."""
    some = bench.first(1000)
    plan = replace(preset("quick" if bench.smoke else "standard"), n=len(some))
    ours, done = bench.timed(lambda: audit(bench.model, some, bench.threat, plan))
    notes = [
        f"{m.name} {m.split}: {m.status}, {m.value}, {m.seconds:.1f} s"
        for m in done.report.measurements
        if m.seconds is not None
    ]
    notes += [f"{m.name} failed: {m.reason}" for m in done.report.failed]
    yield Line(f"audit, preset standard, {len(some)} images", ours, limit=60, notes=tuple(notes))


ROWS = (
    Row("passes", passes, 150, least=30),
    Row("AutoAttack", autoattack, 150, least=60),
    Row("fast", fast, 30, least=5),
    Row("PGD", pgd, 30, least=5),
    Row("flatness", average, 40),
    Row("traces", traces, 40),
    Row("eigenvalue", eigenvalue, 40),
    Row("audit", standard, 120, least=60),
    Row("library", library, 120, least=60),
)
