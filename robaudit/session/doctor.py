"""What is installed, what the machine can do, and whether a checkpoint and data fit each other."""

from __future__ import annotations

import os
import platform
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from pathlib import Path

import torch
from torch import nn

import robaudit
from robaudit.audit.plan import PRESETS
from robaudit.data.places import root_of
from robaudit.datasets import DATA_SETS
from robaudit.engine import Precision, Runner, accelerate, arithmetic
from robaudit.engine.device import resolve_devices
from robaudit.engine.precision import candidates
from robaudit.session.session import Session

_REQUIRED = ("torch", "torchvision", "numpy", "scipy", "safetensors", "pyautoattack", "pyhessian")
# What an optional package is for, and the extra that installs it.
_OPTIONAL = {
    "robustbench": ("RobustBench's models", "robustbench"),
    "timm": ("timm's models and networks", "timm"),
    "ray": ("batches on a cluster", "ray"),
    "pyarrow": ("Parquet files", "parquet"),
    "pandas": ("data frames", "pandas"),
}
_ENOUGH_DISK = 2 << 30
_REPEATS = 3
# A precision is worth a word where it takes less than this share of the time in fp32.
_FASTER = 0.8


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        about: what was looked at.
        found: in words.
        advice: what to do about it; empty where nothing needs to be done.
    """

    about: str
    found: str
    advice: str = ""


def installation() -> list[Finding]:
    """The versions that results depend on, and the optional packages."""
    built = torch.version.cuda
    found = [
        Finding("robaudit", f"{robaudit.__version__}, Python {platform.python_version()}"),
        Finding("Platform", platform.platform(terse=True)),
        Finding("torch built for", f"CUDA {built}" if built else "CPU only"),
    ]
    found += [Finding(package, _version(package) or "missing") for package in _REQUIRED]
    for package, (purpose, extra) in _OPTIONAL.items():
        version = _version(package)
        advice = "" if version else f"For {purpose}: pip install 'robaudit[{extra}]'"
        found.append(Finding(package, version or "not installed", advice))
    return found


def machine(device: str = "auto") -> list[Finding]:
    """The devices, the arithmetic that is fast there, by measuring, and the disk.

    Raises:
        UsageError: there is no such device.
    """
    found = []
    for place in resolve_devices(device):
        found.append(Finding("Device", _named(place), "" if place.type == "cuda" else _no_cuda()))
        found.append(Finding("Arithmetic", *_arithmetic(place)))
    for about, folder in (("here", Path.cwd()), ("temporary", Path(tempfile.gettempdir()))):
        free = shutil.disk_usage(folder).free
        few = "Reports and kept pieces of attacks may not fit." if free < _ENOUGH_DISK else ""
        found.append(Finding(f"Disk, {about}", f"{free / 2**30:.1f} GiB free in {folder}", few))
    return found


def data_sets(data_dir: Path | None = None) -> list[Finding]:
    """Where each of torchvision's sets lies."""
    there, missing = [Finding("digits", "bundled")], []
    for name in (name for name, known in DATA_SETS.items() if known.torchvision):
        root = root_of(name, data_dir)
        if root is None:
            missing.append(name)
        else:
            there.append(Finding(name, str(root)))
    if missing:
        advice = "Say where: --data-dir DIR or ROBAUDIT_DATA_DIR; or fetch it: --download"
        there.append(Finding("Not found", ", ".join(missing), advice))
    return there


def fit(session: Session, source: str) -> Iterator[Finding]:
    """Whether a checkpoint can be opened and run on the data, and how long audits would take.

    Raises:
        RobauditError: it cannot.
    """
    model, examples = session.open(source), session.examples
    origin = model.origin
    yield Finding("Network", f"{origin.architecture}, normalisation {origin.normalization}")
    with Runner.of(model) as runner:
        logits = runner.logits(examples.x)
        right = int((logits.argmax(1).cpu() == examples.y).sum())
        yield Finding(
            "Data",
            f"{examples.name} {examples.split}: {right} of the first {len(examples)} classified "
            "correctly",
            _few(right, len(examples)),
        )
        form = accelerate(model, examples.x.shape[1:], examples=examples.x)
        search = Runner(form.forward, runner.device, runner.batch, precision=form.precision)
        gradient = _seconds(lambda: search.gradient(_sum, examples.x, examples.y))
    yield Finding("Faster form", ", ".join(form.used) or "none", "; ".join(form.notes))
    each = gradient / len(examples)
    yield Finding("One gradient", f"{1000 * each:.3g} ms an image")
    for name, plan in PRESETS.items():
        # A forward and a backward pass are priced as three passes.
        seconds = plan.passes(plan.n) * each / 3
        passes = f"{plan.n} images, passes of at most {_duration(seconds)}"
        yield Finding(f"--preset {name}", passes)


def _sum(logits: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return logits.logsumexp(1)


def _few(right: int, n: int) -> str:
    if 2 * right >= n:
        return ""
    return "Few are right: check --data, --normalize and --arch before you believe any number."


def _duration(seconds: float) -> str:
    for unit, size in (("h", 3600.0), ("min", 60.0)):
        if seconds >= size:
            return f"{seconds / size:.2g} {unit}"
    return f"{seconds:.2g} s"


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _named(place: torch.device) -> str:
    if place.type == "cuda":
        free, total = torch.cuda.mem_get_info(place)
        name = torch.cuda.get_device_name(place)
        return f"{place}: {name}, {free / 2**30:.0f} of {total / 2**30:.0f} GiB free"
    return f"cpu: cores {os.cpu_count()}, threads {torch.get_num_threads()}"


def _no_cuda() -> str:
    if torch.version.cuda:
        return (
            "No CUDA device is seen; where there is one, nvidia-smi says whether its driver works."
        )
    return ""


def _arithmetic(place: torch.device) -> tuple[str, str]:
    """How long convolutions take beside those in fp32, and what to do with that."""
    times: dict[Precision, float] = {}
    with torch.no_grad():
        layer = nn.Conv2d(64, 64, 3, padding=1).to(place)
        x = torch.rand(64, 64, 16, 16, device=place)
        for one in reversed(candidates("bf16", place)):  # bf16 comes last: it rounds the layer
            kind = torch.bfloat16 if one == "bf16" else torch.float32
            run, y = layer.to(kind), x.to(kind)
            with arithmetic(one):
                times[one] = _seconds(partial(run, y))
    ratios = {one: seconds / times["fp32"] for one, seconds in times.items() if one != "fp32"}
    said = ", ".join(f"{one} {ratio:.2g}" for one, ratio in ratios.items())
    tried = candidates("auto", place)
    missed = [one for one, ratio in ratios.items() if ratio < _FASTER and one not in tried]
    return (
        f"times of a convolution: fp32 1, {said}; --precision auto tries {', then '.join(tried)}",
        f"Searches may be faster with --precision {missed[-1]}." if missed else "",
    )


def _seconds(work: Callable[[], object]) -> float:
    """The shortest of a few times, after one that does not count."""
    times = []
    for _ in range(1 + _REPEATS):
        clock = time.perf_counter()
        work()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        times.append(time.perf_counter() - clock)
    return min(times[1:])
