"""The rows of ``gpu.py`` with passes alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch
from gpu_bench import Bench, Line, counted, cross_entropy
from torch import nn

from robaudit.checkpoints.architectures.residual_families import wide_resnet
from robaudit.engine import Runner, accelerate, frozen
from robaudit.engine.captured import Captured
from robaudit.engine.precision import default_precision


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
