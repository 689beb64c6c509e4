"""TrH regularisation of a three-layer network on two moons: none, top layer, all layers.

    python studies/two_moons.py --out moons-study --minutes 20

The TrH paper's Example 1 (Figures 2 and 5): 500 points, Dense(100)-ReLU-Dense(100)-ReLU-Dense(2),
adversarial training. `--paper` takes the radius, steps and lambdas of the paper's appendix in place
of ours. Writes `moons.md` and `moons.svg`: trace of the Hessian of the whole network
and, per layer, trace and standard deviation of the eigenvalues over the epochs.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
from running import Row, Study, main, pyplot, spread, table

import robaudit as ra
from robaudit.curvature import layer_spreads

EPS = 0.03
LAYERS = "flatten-linear2x{w}-relu-linear{w}x{w}-relu-linear{w}x2"
HEAD = 'objective = "at"\nbatch_size = 100\nlearning_rate = 0.1\nweight_decay = 0.0\n'
TRH = '[trh]\nwhere = "{}"\nweight = {}\nschedule = "constant"\n'
TABLES = {"standard": "", "top": TRH.format("top", 0.01), "full": TRH.format("full", 0.01)}
PAPER_EPS = 0.02
PAPER = {"standard": "", "top": TRH.format("top", 0.5), "full": TRH.format("full", 0.05)}
OPTIONS = {
    "--paper": {
        "action": "store_true",
        "help": "radius 0.02, one step of PGD, lambda 0.5 and 0.05",
    },
    "--seeds": {"type": int, "default": 3, "help": "networks of each kind"},
}


def two_moons(n: int, noise: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Points of two interleaved half circles, ``(n, 1, 1, 2)`` scaled into the unit square."""
    draw = np.random.default_rng(seed)
    y = np.arange(n) % 2
    angle = np.pi * draw.random(n)
    points = np.stack([np.cos(angle), np.sin(angle)], 1)
    points[y == 1] = [1, 0.5] - points[y == 1]
    points += noise * draw.standard_normal(points.shape)
    x = (points - [-1.5, -1.0]) / [4.0, 2.5]  # the half circles and three deviations of noise
    return x.clip(0, 1).astype(np.float32).reshape(n, 1, 1, 2), y


def run(study: Study) -> None:
    data = study.out / "moons.npz"
    if not data.is_file():
        x, y = two_moons(500, 0.1, 0)
        np.savez(data, x=x, y=y)
    epochs, every, width = (2, 1, 8) if study.smoke else (100, 10, 100)
    paper = study.given.paper
    eps, attack = (PAPER_EPS, "[attack]\nsteps = 1\n") if paper else (EPS, "")
    for seed in range(1 if study.smoke else study.given.seeds):
        for name, text in (PAPER if paper else TABLES).items():
            head = f"epochs = {epochs}\nseed = {seed}\n"
            folder = study.train(
                f"{name}-{seed}-run", head + HEAD + f"[threat]\neps = {eps}\n{attack}" + text,
                "--data", data, "--every", every, "--device", "cpu",
                "--arch", f"sequential_cnn(layers={LAYERS.format(w=width)})",
            )  # fmt: skip
            study.once(f"{name}-{seed}", lambda f=folder: {"epochs": curve(f, data, eps)})


def curve(folder: Path, data: Path, eps: float) -> list[Row]:
    """Traces and spreads of every checkpoint, on the adversarial training points."""
    part = ra.load_examples(str(data))
    threat = ra.ThreatModel("linf", eps)
    rows = []
    for path in sorted((folder / "checkpoints").iterdir()):
        model = ra.load(path, device="cpu")
        met = ra.attacks.pgd(model, part.x, part.y, threat, steps=20, index=part.index)
        spreads = layer_spreads(model, met.x, part.y, probes=100)
        rows.append(
            {
                "epoch": int(model.origin.epoch or 0),
                "trace": [spread.dimension * spread.mean for spread in spreads.values()],
                "deviation": [spread.deviation for spread in spreads.values()],
                "robust": float(met.robust.double().mean()),
                "loss": float(met.loss.double().mean()),
            }
        )
    return rows


def report(study: Study) -> None:
    runs = {
        name: [json.loads(path.read_text("utf-8"))["epochs"] for path in paths]
        for name in TABLES
        if (paths := sorted(study.out.glob(f"{name}-?.json")))
    }
    if not runs:
        return
    lines = []
    for name, curves in runs.items():
        ends = [rows[-1] for rows in curves]
        cells = [[sum(end["trace"]) for end in ends], [end["trace"][-1] for end in ends]]
        cells += [[end["deviation"][-1] for end in ends], [100 * end["robust"] for end in ends]]
        lines.append([name, len(ends), *map(spread, cells)])
    header = ("TrH", "seeds", "trace, all layers", "trace, top", "deviation, top", "robust, %")
    (study.out / "moons.md").write_text(table(header, lines) + "\n", "utf-8")
    print(table(header, lines))
    picture(runs, study.out / "moons.svg")


def picture(runs: dict[str, list[list[Row]]], path: Path) -> None:
    """Traces above, deviations below: all layers, then each."""
    plt = pyplot()
    figure, axes = plt.subplots(2, 4, figsize=(12, 5.5), layout="constrained")
    for k, (name, curves) in enumerate(runs.items()):
        for rows in curves:
            epochs = [row["epoch"] for row in rows]
            label = name if rows is curves[0] else None
            total = [sum(row["trace"]) for row in rows]
            axes[0][0].plot(epochs, total, lw=1, color=f"C{k}", label=label)
            for line, what in enumerate(("trace", "deviation")):
                for layer in range(3):
                    values = [row[what][layer] for row in rows]
                    axes[line][layer + 1].plot(epochs, values, lw=1, color=f"C{k}")
            losses = [row["loss"] for row in rows]
            axes[1][0].plot(epochs, losses, lw=1, color=f"C{k}")
    axes[0][0].set_title("trace, all layers", fontsize=10)
    axes[1][0].set_title("robust loss", fontsize=10)
    for layer in range(3):
        axes[0][layer + 1].set_title(f"trace, layer {layer + 1}", fontsize=10)
        axes[1][layer + 1].set_title(f"deviation, layer {layer + 1}", fontsize=10)
    for panel in axes[1]:
        panel.set_xlabel("epoch")
    figure.legend(*axes[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


if __name__ == "__main__":
    sys.exit(main(__doc__ or "", run, report, options=OPTIONS))
