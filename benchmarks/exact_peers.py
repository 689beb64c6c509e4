"""Exact layer traces against the libraries that have them: time, memory and error, in one run.

    python benchmarks/exact_peers.py [NETWORK ...]

Gauss-Newton traces of the weights of all convolutions and linear layers, on one thread, each
library in a process of its own. *Seconds* are of user processor time, the median of ``RUNS`` runs
after a first one, in which robaudit also compares the network's gradient with a difference; the
first is given beside it. *Memory* is the largest resident size in the later runs less what was
resident before all, and that in the first. *Error* is the largest relative one of a layer (of the
total for PyHessian, which has no layers), against gradients in float64 by plain automatic
differentiation, one example and one class at a time; in float32 a ReLU within rounding of zero may
be active where it is not in float64.

- nngeometry: ``FIM`` with ``PMatDiag`` in batches of ``BATCH``. It computes the biases, too.
- curvlinops: ``GGNDiagonalLinearOperator``, which release 3.0.1 does not have.
- PyHessian: ``trace()`` at its defaults, an estimate of the total with biases and norms; one run.
  It is the Hessian's, which is another matrix on smooth networks (``smooth``, ``vit``).

What is not installed, or does not take a network, is left out and says why.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import math
import resource
import statistics
import subprocess
import sys
from pathlib import Path

RUNS, BATCH = 3, 64
# Name and images.
CASES = {
    "robust": 192, "standard": 192, "smooth": 64, "cnn-a": 192, "vit": 32, "resnet-18": 16,
}  # fmt: skip
LIBRARIES = ("float64", "robaudit", "nngeometry", "curvlinops", "pyhessian")
PACKAGES = {"curvlinops": "curvlinops-for-pytorch", "pyhessian": "pyhessian"}


def case(name):
    """The network, images and labels, or ``None`` where its files are not here."""
    import networks
    import torch

    import robaudit as ra
    from robaudit.checkpoints import samples_dir
    from robaudit.checkpoints.architectures import ARCHITECTURES

    n = CASES[name]
    if name in ("cnn-a", "resnet-18"):
        found = networks.cnn_a(n) if name == "cnn-a" else networks.resnet_18(n)
        return found and (found.model, found.x, found.y)
    torch.manual_seed(0)
    if name == "vit":
        factory = ARCHITECTURES["vit"].factory
        model = factory(width=96, depth=4, heads=3, hidden=384).eval()
        return model, torch.rand(n, 3, 32, 32), torch.arange(n) % 10
    file = next(samples_dir().glob(f"{name}.*"))
    digits = ra.load_examples("digits")
    return ra.load(file, device="cpu"), digits.x[:n], digits.y[:n]


def modules_of(model):
    from torch import nn

    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Conv2d | nn.Linear)
    }


def float64(model, x, y):
    import torch

    from robaudit.curvature.per_example import plain_attention
    from robaudit.curvature.softmax import logit_curvature_factor

    model, x = model.double(), x.double()
    weights = {name: module.weight.requires_grad_() for name, module in modules_of(model).items()}
    totals = torch.zeros(len(weights), dtype=torch.float64)
    with plain_attention():
        for image in x.split(1):
            logits = model(image)
            for column in logit_curvature_factor(logits.detach()):
                rows = torch.autograd.grad(
                    logits, list(weights.values()), column, retain_graph=True
                )
                totals += torch.stack([row.square().sum() for row in rows])
    return dict(zip(weights, (totals / len(x)).tolist(), strict=True))


def robaudit(model, x, y):
    from robaudit.curvature import layer_traces

    found = layer_traces(model, x, y, estimator="exact", layers=list(modules_of(model)))
    return {name: layer.trace for name, layer in found.layers.items()}


def nngeometry(model, x, y):
    from nngeometry.layercollection import LayerCollection
    from nngeometry.metrics import FIM
    from nngeometry.object.pspace import PMatDiag
    from torch.utils.data import DataLoader, TensorDataset

    model.requires_grad_(True)
    modules, layers = modules_of(model), LayerCollection()
    for module in modules.values():
        layers.add_layer_from_model(model, module)
    diagonal = FIM(
        model=model,
        loader=DataLoader(TensorDataset(x, y), batch_size=BATCH),
        representation=PMatDiag,
        layer_collection=layers,
        function=lambda *batch: model(batch[0]),
    ).get_diag()
    traces, start = {}, 0
    for name, module in modules.items():
        traces[name] = float(diagonal[start:][: module.weight.numel()].double().sum())
        start += module.weight.numel() + (0 if module.bias is None else module.bias.numel())
    if start != len(diagonal):
        raise ValueError("its diagonal has another number of entries than the layers")
    return traces


def curvlinops(model, x, y):
    from curvlinops import GGNDiagonalLinearOperator
    from torch import nn

    model.requires_grad_(False)
    modules = modules_of(model)
    weights = [module.weight.requires_grad_() for module in modules.values()]
    batches = list(zip(x.split(BATCH), y.split(BATCH), strict=True))
    diagonal = GGNDiagonalLinearOperator(
        model, nn.CrossEntropyLoss(), weights, batches, check_deterministic=False
    )
    return {
        name: float(part.double().sum())
        for name, part in zip(modules, diagonal._diagonal, strict=True)
    }


def pyhessian(model, x, y):
    import pooled

    probes, _ = pooled.trace(model, x, y)
    return {"total": statistics.fmean(probes)}


def measure(library, name):
    """In a process of its own: prints seconds, bytes and traces as JSON."""
    import torch

    torch.set_num_threads(1)
    found = case(name)
    if found is None:
        return {"absent": "the network's files are not here"}
    model, x, y = found
    compute = {
        "float64": float64, "robaudit": robaudit, "nngeometry": nngeometry,
        "curvlinops": curvlinops, "pyhessian": pyhessian,
    }[library]  # fmt: skip
    before, times, peaks = resident(), [], []
    for _ in range(1 if library in ("float64", "pyhessian") else 1 + RUNS):
        Path("/proc/self/clear_refs").write_text("5")  # forgets the largest resident size
        start = resource.getrusage(resource.RUSAGE_SELF).ru_utime
        try:
            traces = compute(model, x, y)
        except Exception as error:  # a peer's own, of any kind
            if library in ("float64", "robaudit"):
                raise
            return {"absent": " ".join(str(error).split())[:110]}
        times.append(resource.getrusage(resource.RUSAGE_SELF).ru_utime - start)
        peaks.append(resident() - before)
    return {
        "first": times[0],
        "seconds": statistics.median(times[1:] or times),
        "first_bytes": peaks[0],
        "bytes": max(peaks[1:] or peaks),
        "traces": traces,
    }


def resident():
    """Bytes, the largest so far; unlike ``ru_maxrss`` it does not begin with the parent's."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) * 1024
    raise SystemExit("this benchmark reads the peak of memory from Linux's /proc")


def error(found, judge):
    if set(found) == {"total"}:
        return abs(found["total"] / sum(judge.values()) - 1)
    errors = [abs(found[name] / judge[name] - 1) for name in judge]
    return max(errors) if all(map(math.isfinite, errors)) else math.nan


def compare(name):
    judge, ours = None, None
    for library in LIBRARIES:
        command = [sys.executable, __file__, "--measure", library, name]
        out = subprocess.run(command, capture_output=True, text=True)
        if out.returncode:
            raise SystemExit(out.stderr)
        found = json.loads(out.stdout.splitlines()[-1])
        if "absent" in found:
            print(f"  {library:11s} left out: {found['absent']}", flush=True)
            if library == "float64":
                return
            continue
        if library == "float64":
            judge = found["traces"]
            print(f"{name}: {CASES[name]} images, total {sum(judge.values()):.2f} in float64")
            continue
        ours = found if library == "robaudit" else ours
        ratio = "" if found is ours else (
            f"   ours 1/{found['seconds'] / ours['seconds']:.2f} of its time, "
            f"1/{found['bytes'] / max(ours['bytes'], 1):.1f} of its memory"
        )  # fmt: skip
        off = error(found["traces"], judge)
        memory = f"{found['bytes'] / 1e6:6.0f} MB (first {found['first_bytes'] / 1e6:.0f})"
        print(
            f"  {library:11s} {found['seconds']:7.2f} s (first {found['first']:.2f})  "
            f"{memory}  error {off:.1e}{ratio}",
            flush=True,
        )


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("networks", nargs="*", default=list(CASES))
    parser.add_argument("--measure", choices=LIBRARIES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(options.measure, options.networks[0])))
        return
    for library in LIBRARIES[2:]:
        try:
            print(library, importlib.metadata.version(PACKAGES.get(library, library)))
        except importlib.metadata.PackageNotFoundError:
            print(library, "is not installed")
    for name in options.networks:
        compare(name)


if __name__ == "__main__":
    main()
