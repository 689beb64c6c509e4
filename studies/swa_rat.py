"""SWA and RAT on the digits under conditions where each has something to do.

    python studies/swa_rat.py --out swa-rat-study

Under a cosine schedule the weights stand still at the end, and the digits' clean accuracy is at its
ceiling: `studies/digits.py` can show neither. Here AT runs at a constant rate, and the averaged
network is held against the one that it averages; and TRADES learns from few images, with and
without Taylor terms. Writes `swa.md` and `rat.md`. The same command goes on where it stopped.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from measuring import measured
from running import Row, Study, interval, main, spread, table

import robaudit as ra

THREAT = ra.ThreatModel("linf", 0.15)
SEEDS = 5
SWA = "epochs = {epochs}\nbatch_size = 64\nseed = {seed}\n[swa]\ndecay = 0.995\nafter = {after}\n"
TRADES = (
    'objective = "trades"\nepochs = {epochs}\nbatch_size = 32\nseed = {seed}\n'
    '[schedule]\nkind = "cosine"\n'
)
TAYLOR = {
    "none": "",
    "exact, order 1": "[taylor]\neta = 0.3\n",
    "exact, order 2": "[taylor]\norder = 2\neta = 0.2\n",
    "exact, order 1, sigma 0.1": "[taylor]\neta = 0.3\nsigma = 0.1\n",
    "last-layer, order 2": '[taylor]\nkind = "last-layer"\norder = 2\neta = 0.2\n',
}
SHOWN = ("clean", "robust", "loss", "wci", "trace", "flatness.average", "flatness.worst")


def run(study: Study) -> None:
    for seed in range(1 if study.smoke else SEEDS):
        study.once(f"swa-{seed}", lambda s=seed: averaged(study, s))
        for k, (kind, text) in enumerate(TAYLOR.items()):
            study.once(
                f"rat-{k}-{seed}", lambda k=k, s=seed, kind=kind, t=text: few(study, k, s, kind, t)
            )


def averaged(study: Study, seed: int) -> Row:
    """A network and its average over the last steps, both measured."""
    epochs, n = (2, 32) if study.smoke else (30, 800)
    recipe = SWA.format(epochs=epochs, seed=seed, after=epochs // 3)
    folder = trained(study, f"swa-{seed}-run", recipe, epochs, n, 4 if study.smoke else 12)
    found: Row = {"seed": seed}
    effort = (2, 2, 1) if study.smoke else (20, 10, 3)
    part = ra.load_examples("digits", n=8 if study.smoke else 300)
    for kind in ("checkpoints", "averaged"):
        path = folder / kind / f"epoch_{epochs:03d}.safetensors"
        found[kind], _ = measured(ra.load(path, device="cpu"), part, THREAT, *effort)
    return found


def few(study: Study, k: int, seed: int, kind: str, text: str) -> Row:
    """TRADES on few images; accuracies on all test images."""
    epochs, n = (1, 32) if study.smoke else (40, 150)
    recipe = TRADES.format(epochs=epochs, seed=seed) + text
    folder = trained(study, f"rat-{k}-{seed}-run", recipe, epochs, n, 4 if study.smoke else 8)
    model = ra.load(folder / "checkpoints" / f"epoch_{epochs:03d}.safetensors", device="cpu")
    part = ra.load_examples("digits", n=8 if study.smoke else None)
    met = ra.attacks.pgd(model, part.x, part.y, THREAT, steps=20, index=part.index)
    return {
        "kind": kind, "seed": seed, "clean": 100 * float(met.correct.double().mean()),
        "robust": 100 * float(met.robust.double().mean()), "loss": float(met.loss.double().mean()),
    }  # fmt: skip


def trained(study: Study, name: str, recipe: str, epochs: int, n: int, width: int) -> Path:
    return study.train(
        name, recipe, "--data", "digits", "--n", n, "--arch", f"digits_resnet(width={width})",
        "--every", epochs, "--device", "cpu",
    )  # fmt: skip


def report(study: Study) -> None:
    def rows(pattern: str) -> list[Row]:
        return [json.loads(path.read_text("utf-8")) for path in sorted(study.out.glob(pattern))]

    pairs, taken = rows("swa-?.json"), rows("rat-*.json")
    if pairs:
        lines = []
        for key in SHOWN:
            last, mean = (
                [pair[kind][key] for pair in pairs] for kind in ("checkpoints", "averaged")
            )
            less = [b - a for a, b in zip(last, mean, strict=True)]
            lines.append([key, spread(last), spread(mean), interval(less)])
        write(study, "swa.md", ("measure", "trained", "averaged", "difference [95 %]"), lines)
    plain = {row["seed"]: row for row in taken if row["kind"] == "none"}
    if plain:
        lines = []
        for kind in TAYLOR:
            own = [row for row in taken if row["kind"] == kind]
            cells: list[object] = [kind, len(own)]
            for key in ("clean", "robust", "loss"):
                cells.append(spread([row[key] for row in own]) if own else "")
                beside = [row[key] - plain[row["seed"]][key] for row in own if row["seed"] in plain]
                cells.append(interval(beside) if kind != "none" else "")
            lines.append(cells)
        header = ("Taylor terms", "seeds")
        for key in ("clean, %", "robust, %", "robust loss"):
            header += (key, "more than without [95 %]")
        write(study, "rat.md", header, lines)


def write(study: Study, name: str, header: tuple[str, ...], lines: list[list[object]]) -> None:
    found = table(header, lines)
    (study.out / name).write_text(found + "\n", "utf-8")
    print(found)


if __name__ == "__main__":
    sys.exit(main(__doc__ or "", run, report))
