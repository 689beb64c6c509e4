"""Eight recipes and three seeds on the bundled digits: which measures go with robust
generalisation, and does each method do what it is for?

    python studies/digits.py --out digits-study --minutes 60

Trains 24 networks (digits_resnet of width 12, linf 0.15), measures each, and writes `methods.md`,
`correlations.md` and `scatter.svg`. The same command goes on where it stopped.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from measuring import measured
from running import Row, Study, main, pyplot, spread, table

import robaudit as ra
from robaudit.curvature import top_layer_trh
from robaudit.report.pictures import palette
from robaudit.statistics.correlations import correlation

BASE = 'objective = "{objective}"\nepochs = {epochs}\nbatch_size = 64\nseed = {seed}\n'
SCHEDULE = '[schedule]\nkind = "cosine"\n'
RECIPES = {
    "at": ("at", ""),
    "at + awp": ("at", "[awp]\ngamma = 0.01\n"),
    "at + swa": ("at", "[swa]\ndecay = 0.98\n"),
    "at + trh": ("at", "[trh]\nweight = 0.05\n"),
    "trades": ("trades", ""),
    "trades + taylor": ("trades", "[taylor]\norder = 1\neta = 0.3\n"),
    "mart": ("mart", "penalty = 5.0\n"),
    "alp": ("alp", ""),
}
MEASURES = (
    "wci", "flatness.average", "flatness.worst", "hessian.largest", "hessian.relative", "trace",
    "trh.top", "weights",
)  # fmt: skip
TARGETS = ("loss.robust", "gap.loss", "gap.error")
THREAT = ra.ThreatModel("linf", 0.15)


def run(study: Study) -> None:
    for seed in range(1 if study.smoke else 3):
        for recipe in list(RECIPES)[: 3 if study.smoke else None]:
            name = f"{recipe.replace(' + ', '-')}-{seed}"
            study.once(name, lambda r=recipe, s=seed, n=name: one(study, n, r, s))


def one(study: Study, name: str, recipe: str, seed: int) -> Row:
    """Train one network and measure it."""
    objective, extra = RECIPES[recipe]
    epochs, width, n = (1, 4, 48) if study.smoke else (30, 12, 1297)
    base = BASE.format(objective=objective, epochs=epochs, seed=seed)
    own, tables = (extra, "") if extra.startswith("penalty") else ("", extra)
    folder = study.train(
        f"{name}-run", base + own + SCHEDULE + tables, "--data", "digits", "--n", n,
        "--arch", f"digits_resnet(width={width})", "--every", epochs, "--device", "cpu",
    )  # fmt: skip
    kind = "averaged" if "swa" in recipe else "checkpoints"
    model = ra.load(folder / kind / f"epoch_{epochs:03d}.safetensors", device="cpu")
    return {"recipe": recipe, "seed": seed, **measures(model, study.smoke)}


def measures(model: ra.Classifier, smoke: bool) -> Row:
    """Every measure on 300 test images, robust loss and error on both splits."""
    steps, draws, restarts, n = (2, 2, 1, 8) if smoke else (20, 10, 3, 300)
    test, train = (ra.load_examples("digits", split=split, n=n) for split in ("test", "train"))
    found, met = measured(model, test, THREAT, steps, draws, restarts)
    found["trh.top"] = top_layer_trh(model, test.x, met.x, test.y, "at").value
    seen = ra.attacks.pgd(model, train.x, train.y, THREAT, steps=steps, index=train.index)
    for name, part in (("test", met), ("train", seen)):
        found[f"clean.{name}"] = float(part.correct.double().mean())
        found[f"robust.{name}"] = float(part.robust.double().mean())
        found[f"loss.{name}"] = float(part.loss.double().mean())
    found["loss.robust"] = found["loss.test"]
    found["gap.loss"] = found["loss.test"] - found["loss.train"]
    found["gap.error"] = found["robust.train"] - found["robust.test"]
    return found


def report(study: Study) -> None:
    rows = [json.loads(path.read_text("utf-8")) for path in sorted(study.out.glob("*.json"))]
    rows = [row for row in rows if row]
    if not rows:
        return
    (study.out / "methods.md").write_text(methods(rows) + "\n", "utf-8")
    (study.out / "correlations.md").write_text(correlations(rows) + "\n", "utf-8")
    scatter(rows, study.out / "scatter.svg")
    print(methods(rows), correlations(rows), sep="\n\n")


def methods(rows: list[Row]) -> str:
    """Mean and standard deviation over seeds."""
    columns = ("clean.test", "robust.test", "gap.loss", *MEASURES)
    lines = []
    for recipe in RECIPES:
        own = [row for row in rows if row["recipe"] == recipe]
        if own:
            values = [[row[column] for row in own] for column in columns]
            lines.append([f"{recipe} ({len(own)})", *map(spread, values)])
    return table(("recipe (seeds)", *columns), lines)


def correlations(rows: list[Row]) -> str:
    """Pearson and Kendall of every measure with every target, over the networks."""
    lines = []
    for measure in MEASURES:
        cells: list[object] = [measure]
        for target in TARGETS:
            found = correlation([r[measure] for r in rows], [r[target] for r in rows])
            if found is None or found.pearson.interval is None:
                cells.append("too few")
                continue
            within = found.pearson.interval
            cells.append(
                f"{found.pearson.value:.2f} [{within.low:.2f}, {within.high:.2f}], "
                f"{found.kendall.value:.2f}"
            )
        lines.append(cells)
    return table(("measure", *(f"{target}: Pearson [95 %], Kendall" for target in TARGETS)), lines)


_LOOKS = (
    (palette.BLUE, "o"), (palette.VERMILION, "s"), (palette.GREEN, "^"), (palette.PURPLE, "D"),
    (palette.OCHRE, "v"), (palette.SKY, "P"), (palette.INK, "X"), ("#707070", "*"),
)  # fmt: skip


def scatter(rows: list[Row], path: Path) -> None:
    """Four measures against the robust loss and its gap, a colour and a marker a recipe."""
    plt = pyplot()
    shown = {
        "wci": "WCI", "flatness.average": "average flatness (nats)",
        "flatness.worst": "worst-case flatness (nats)",
        "hessian.relative": "relative largest eigenvalue",
    }  # fmt: skip
    targets = {"loss.robust": "robust loss (nats)", "gap.loss": "robust loss, test - train (nats)"}
    figure, axes = plt.subplots(2, 4, figsize=(12, 6), layout="constrained")
    for column, measure in enumerate(shown):
        for line, target in enumerate(targets):
            panel = axes[line][column]
            for recipe, (color, marker) in zip(RECIPES, _LOOKS, strict=True):
                own = [row for row in rows if row["recipe"] == recipe]
                xs, ys = [row[measure] for row in own], [row[target] for row in own]
                panel.scatter(xs, ys, s=26, color=color, marker=marker, label=recipe)
            panel.set_xlabel(shown[measure])
            panel.set_ylabel(targets[target])
    figure.legend(*axes[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=8)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


if __name__ == "__main__":
    sys.exit(main(__doc__ or "", run, report))
