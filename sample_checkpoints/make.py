"""Make the sample checkpoints: small networks on the bundled digits, on one core of a CPU.

``python sample_checkpoints/make.py`` trains all of them (linf, eps 0.15) and writes, into this
folder, the files, ``SHA256SUMS`` and the table of ``README.md``; ``make.py robust smooth`` trains
only those. Seeded: on one machine and one torch version, the same bytes again.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from robaudit.attacks import pgd
from robaudit.checkpoints.architectures import ARCHITECTURES, identify
from robaudit.data import default_threat, load_examples
from robaudit.training import At, Standard, Trades, cosine, train
from robaudit.types import Examples, ThreatModel

HERE = Path(__file__).parent
THREAT = default_threat("digits") or ThreatModel("linf", 0.15)
HELD_OUT = 147  # of the 1297 training images; the test split never chooses anything
BATCH = 64
# One checkpoint each: the fall, the minimum and the rise of the robust test loss.
EPOCHS = (1, 5, 12, 30, 60, 100, 160, 240)
MARKS = ("<!-- table: written by make.py -->", "<!-- end of table -->")


def network(architecture: str = "digits_resnet", seed: int = 0) -> nn.Module:
    """A freshly initialised network of the registry."""
    torch.manual_seed(seed)
    return ARCHITECTURES[architecture].factory()


def state_of(model: nn.Module) -> OrderedDict[str, Tensor]:
    """A copy of the state dict, without the private metadata torch adds to it."""
    return OrderedDict((key, value.detach().clone()) for key, value in model.state_dict().items())


def report(label: str, epochs: int) -> Callable[[int, float], None]:
    """An ``on_epoch`` that prints every tenth epoch."""
    start = time.monotonic()

    def show(epoch: int, loss: float) -> None:
        if epoch % 10 == 0 or epoch == epochs:
            print(f"{label}: epoch {epoch}/{epochs}, loss {loss:.4f}, "
                  f"{time.monotonic() - start:.0f} s", flush=True)  # fmt: skip

    return show


def robust_loss(model: nn.Module, x: Tensor, y: Tensor, steps: int) -> float:
    """The mean robust loss under PGD with one start."""
    return float(pgd(model, x, y, THREAT, steps=steps).loss.double().mean())


def make_standard(data: Examples) -> None:
    """Clean images only: accurate, and not robust."""
    model, epochs = network(), 40
    train(
        model, data.x, data.y, Standard(), learning_rates=cosine(0.1, epochs),
        batch_size=BATCH, weight_decay=5e-4, on_epoch=report("standard", epochs),
    )  # fmt: skip
    torch.save(state_of(model), HERE / "standard.pt")


def make_robust(data: Examples) -> None:
    """Adversarial training, kept at the epoch with the lowest robust loss on held-out images."""
    model, rates = network(), [0.1] * 24 + [0.02] * 16
    x, y = data.x[:-HELD_OUT], data.y[:-HELD_OUT]
    held_x, held_y = data.x[-HELD_OUT:], data.y[-HELD_OUT:]
    show, best = report("robust", len(rates)), (float("inf"), 0, state_of(model))

    def keep(epoch: int, loss: float) -> None:
        nonlocal best
        show(epoch, loss)
        held = robust_loss(model, held_x, held_y, steps=10)
        if held < best[0]:
            best = held, epoch, state_of(model)

    train(
        model, x, y, At(THREAT), learning_rates=rates,
        batch_size=BATCH, weight_decay=3e-3, on_epoch=keep,
    )  # fmt: skip
    print(f"robust: kept epoch {best[1]}, held-out robust loss {best[0]:.3f}")
    torch.save(best[2], HERE / "robust.pt")


def make_overfit(data: Examples) -> None:
    """Adversarial training far too long, without weight decay, and eight checkpoints of it."""
    model, last = network(), EPOCHS[-1]
    show, folder = report("overfit", last), HERE / "epochs"
    folder.mkdir(exist_ok=True)
    for old in folder.glob("epoch_*.pt"):
        old.unlink()

    def keep(epoch: int, loss: float) -> None:
        show(epoch, loss)
        if epoch in EPOCHS:
            torch.save(state_of(model), folder / f"epoch_{epoch:03d}.pt")

    # The first fall of the rate brings the lowest robust test loss and the long run after it loses
    # it again; the second lets the robust training loss go on falling to the end.
    rates = [0.1] * 24 + [0.03] * 126 + [0.01] * (last - 150)
    train(
        model, data.x, data.y, At(THREAT), learning_rates=rates,
        batch_size=BATCH, on_epoch=keep,
    )  # fmt: skip
    torch.save(state_of(model), HERE / "overfit.pt")


def make_trades(data: Examples) -> None:
    """TRADES with beta 6, all epochs of a falling rate."""
    model, epochs = network(), 50
    train(
        model, data.x, data.y, Trades(THREAT, penalty=6.0),
        learning_rates=cosine(0.1, epochs), batch_size=BATCH, weight_decay=5e-4,
        on_epoch=report("trades", epochs),
    )  # fmt: skip
    recipe = f"TRADES beta 6, PGD-10, linf 0.15, {epochs} epochs, SGD cosine 0.1, seed 0"
    save_with_metadata(model, "trades", "digits_resnet", recipe)


def make_smooth(data: Examples) -> None:
    """The vision transformer, adversarially trained: nothing in it is piecewise linear."""
    model, clean, epochs = network("digits_vit"), 30, 80
    # Adversarial training alone never leaves the constant prediction here, so it starts from a
    # network that already tells the digits apart.
    stages = (
        ("smooth, clean", Standard(), clean),
        ("smooth", At(THREAT), epochs),
    )
    for label, objective, count in stages:
        train(
            model, data.x, data.y, objective, learning_rates=cosine(0.1, count, warmup=5),
            batch_size=BATCH, weight_decay=1e-4, clip_norm=1.0, on_epoch=report(label, count),
        )  # fmt: skip
    recipe = f"{clean} epochs clean, then AT, PGD-10, linf 0.15, {epochs} epochs, SGD, seed 0"
    save_with_metadata(model, "smooth", "digits_vit", recipe)


def save_with_metadata(model: nn.Module, name: str, architecture: str, recipe: str) -> None:
    """A safetensors file that says what it is."""
    metadata = {
        "robaudit.architecture": architecture,
        "robaudit.normalization": "none",
        "robaudit.trained": recipe,
        "robaudit.data": "digits",
    }
    tensors = {key: value.contiguous() for key, value in state_of(model).items()}
    path = HERE / f"{name}.safetensors"
    save_file(tensors, path, metadata)
    sort_metadata(path)


def sort_metadata(path: Path) -> None:
    """Put a safetensors file's metadata in order: the library writes them in a random one."""
    blob = path.read_bytes()
    end = 8 + int.from_bytes(blob[:8], "little")
    header = json.loads(blob[8:end])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":")).encode().ljust(end - 8)
    assert len(text) == end - 8
    path.write_bytes(blob[:8] + text + blob[end:])


def samples() -> list[Path]:
    """Every checkpoint, in the order of the table."""
    names = ("standard.pt", "robust.pt", "trades.safetensors", "smooth.safetensors", "overfit.pt")
    found = [HERE / name for name in names if (HERE / name).exists()]
    return [*found, *sorted((HERE / "epochs").glob("*.pt"))]


def read(path: Path) -> nn.Module:
    """The network of a sample, its architecture found by the shapes."""
    state = (
        load_file(path) if path.suffix == ".safetensors" else torch.load(path, weights_only=True)
    )
    model = identify({key: tuple(value.shape) for key, value in state.items()})[0].build()
    model.load_state_dict(state)
    return model.eval()


def table(test: Examples, training: Examples) -> str:
    """Clean accuracy, PGD-20 robust accuracy and robust loss of every sample on both splits."""
    lines = [
        "| file | clean, test | robust, test | robust, train | robust loss, test | train |",
        "|---|---|---|---|---|---|",
    ]
    for path in samples():
        model, cells = read(path), []
        found = [pgd(model, part.x, part.y, THREAT, steps=20) for part in (test, training)]
        cells.append(f"{float(found[0].correct.double().mean()):.3f}")
        cells += [f"{float(part.robust.double().mean()):.3f}" for part in found]
        cells += [f"{float(part.loss.double().mean()):.3f}" for part in found]
        lines.append(f"| `{path.relative_to(HERE)}` | {' | '.join(cells)} |")
        print(lines[-1], flush=True)
    return "\n".join(lines)


def write_sums() -> None:
    """``SHA256SUMS``, as ``sha256sum`` writes it."""
    lines = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(HERE)}\n"
             for path in samples()]  # fmt: skip
    (HERE / "SHA256SUMS").write_text("".join(lines))


def main(names: list[str]) -> None:
    """Train the named samples (all without a name), then measure and list what is there."""
    torch.set_num_threads(1)
    makers = {
        "standard": make_standard, "overfit": make_overfit, "robust": make_robust,
        "trades": make_trades, "smooth": make_smooth,
    }  # fmt: skip
    start, training = time.monotonic(), load_examples("digits", split="train")
    for name in names or makers:
        makers[name](training)
    measured = table(load_examples("digits"), training)
    readme = HERE / "README.md"
    before, after = readme.read_text().split(MARKS[0])[0], readme.read_text().split(MARKS[1])[1]
    readme.write_text(f"{before}{MARKS[0]}\n{measured}\n{MARKS[1]}{after}")
    write_sums()
    print(f"{time.monotonic() - start:.0f} s in all")


if __name__ == "__main__":
    main(sys.argv[1:])
