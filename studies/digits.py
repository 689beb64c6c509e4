"""Eight recipes and three seeds on the bundled digits: which measures go with robust
generalisation, and does each method do what it is for?

    python studies/digits.py --out digits-study --minutes 90

Trains 24 networks (digits_resnet of width 12, linf 0.15), audits them in one batch with every
measure that a study correlates, and writes `methods.md`, `summary.md`, `correlations.md`,
`study.csv` and the pictures of `robaudit batch study`. The same command goes on where it stopped.
`--train-only` stops before the audits: they are made with the measures that there are when they
begin, so that a newer version takes the same networks and a folder without `audits`.
"""

from __future__ import annotations

import json
import sys

from running import Study, main, spread, table

from robaudit import measures
from robaudit.audit.plan import preset
from robaudit.audit.probes import known
from robaudit.batch.directory import State, find
from robaudit.batch.study import Pair, studies
from robaudit.batch.study import Study as Correlated
from robaudit.batch.study_plot import write_study_plots
from robaudit.batch.study_tables import study_csv, study_document
from robaudit.report.formats.csv_text import csv_text
from robaudit.report.formats.markdown import markdown_text
from robaudit.schema import Report

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
PRESET = "quick"
# Bounds of these networks take minutes each; there are no corruptions of the digits.
LEFT_OUT = {"certified", "corruptions"}
# Of each method; a name that a version has not is left out.
SHOWN = (
    "accuracy.clean", "accuracy.fast", "gap.loss", "wci", "flatness.average", "flatness.worst",
    "hessian.relative_largest", "trace.total", "trh.top_layer",
)  # fmt: skip
OPTIONS = {
    "--train-only": {"action": "store_true", "help": "train the networks and stop"},
    "--workers": {"type": int, "default": 0, "help": "processes that audit; 0 for this one"},
}


def run(study: Study) -> None:
    for seed in range(1 if study.smoke else 3):
        for recipe in list(RECIPES)[: 3 if study.smoke else None]:
            trained(study, recipe, seed)
    if not study.given.train_only:
        manifest = study.out / "audits.toml"
        manifest.write_text(audits(study), "utf-8")
        words = ("--out", study.out / "audits", "--workers", study.given.workers)
        study.robaudit("batch", manifest, *words)


def trained(study: Study, recipe: str, seed: int) -> None:
    objective, extra = RECIPES[recipe]
    epochs, width, n = size(study)
    base = BASE.format(objective=objective, epochs=epochs, seed=seed)
    own, tables = (extra, "") if extra.startswith("penalty") else ("", extra)
    study.train(
        f"{recipe.replace(' + ', '-')}-{seed}-run", base + own + SCHEDULE + tables,
        "--data", "digits", "--n", n, "--arch", f"digits_resnet(width={width})", "--every", epochs,
        "--device", "cpu",
    )  # fmt: skip


def size(study: Study) -> tuple[int, int, int]:
    """Epochs, width, and training images."""
    return (12, 4, 300) if study.smoke else (30, 12, 1297)


def audits(study: Study) -> str:
    """The manifest: a group for each recipe."""
    epochs, *_ = size(study)
    probes = also()[: 2 if study.smoke else None]
    lines = [
        f'preset = "{PRESET}"\nalso = {json.dumps(probes)}\ndata = "digits"',
        f'n = {8 if study.smoke else 300}\nthreats = "linf 0.15"\n',
    ]
    for recipe in RECIPES:
        kind = "averaged" if "swa" in recipe else "checkpoints"
        stem = recipe.replace(" + ", "-")
        files = [
            f"{stem}-{seed}-run/{kind}/epoch_{epochs:03d}.safetensors"
            for seed in range(3)
            if (study.out / f"{stem}-{seed}-run").is_dir()
        ]
        if files:
            lines.append(f"[[models]]\nfiles = {json.dumps(files)}\ngroup = {json.dumps(recipe)}")
    return "\n".join(lines) + "\n"


def also() -> list[str]:
    """The attack that ranks the networks, and every probe whose measures a study correlates."""
    plan = preset(PRESET)
    there = {probe.name for probe in plan.probes} | LEFT_OUT | {"fast"}
    names = {
        kind.name
        for kind in known()
        if any(row.study for row in kind.measures) and kind.fitting(plan) is not None
    }
    return ["fast", *sorted(names - there)]


def report(study: Study) -> None:
    if study.given.train_only or not (study.out / "audits" / "run.json").is_file():
        return
    state = find(study.out / "audits").state()
    if len(state.done) < 3:
        return
    found = studies(state)
    (study.out / "methods.md").write_text(methods(state) + "\n", "utf-8")
    (study.out / "summary.md").write_text(summary(found[0]) + "\n", "utf-8")
    (study.out / "correlations.md").write_text(markdown_text(*study_document(found)), "utf-8")
    (study.out / "study.csv").write_text(csv_text(study_csv(found)), "utf-8")
    write_study_plots(found, study.out)
    print(methods(state), summary(found[0]), sep="\n\n")


def methods(state: State) -> str:
    """Mean and standard deviation over seeds."""
    reports: dict[str, list[Report]] = {}
    for row in state.rows:
        if (one := state.report(row.key)) is not None:
            reports.setdefault(str(row.job.group), []).append(one)
    every = [report for own in reports.values() for report in own]
    names = [name for name in SHOWN if all(value(one, name) is not None for one in every)]
    lines = [
        [f"{recipe} ({len(own)})", *(spread([value(one, name) for one in own]) for name in names)]
        for recipe in RECIPES
        if (own := reports.get(recipe))
    ]
    return table(("recipe (seeds)", *(measures.find(name).study or name for name in names)), lines)


def summary(study: Correlated) -> str:
    """A row a measure: Spearman's with its interval, then partial and granulated, by outcome."""
    pairs = {(pair.labels[0], pair.labels[1]): pair for pair in study.pairs}
    rows, outcomes = (list(dict.fromkeys(pair.labels[at] for pair in study.pairs)) for at in (0, 1))

    def whole(pair: Pair | None) -> str:
        if pair is None or pair.found is None:
            return "-"
        one = pair.found.spearman
        within = one.interval
        text = f"{one.value:+.2f}"
        text += f" [{within.low:+.2f}, {within.high:+.2f}]" if within else ""
        return f"**{text}**" if pair.corrected is not None and pair.corrected < 0.05 else text

    def others(pair: Pair | None) -> str:
        both = (getattr(pair and pair.found, name, None) for name in ("partial", "granulated"))
        return ", ".join("-" if one is None else f"{one.value:+.2f}" for one in both)

    first, second = (
        table(
            ("measure", *outcomes),
            [[row, *(cell(pairs.get((row, o))) for o in outcomes)] for row in rows],
        )
        for cell in (whole, others)
    )
    return f"Spearman [95 %], bold: p < 0.05 (Holm)\n\n{first}\n\nPartial, Psi\n\n{second}"


def value(report: Report, name: str) -> float | None:
    found = report.get(name)
    return None if found is None else found.value


if __name__ == "__main__":
    sys.exit(main(__doc__ or "", run, report, options=OPTIONS))
