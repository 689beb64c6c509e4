"""The RAT paper's Tables 1 and 4, small: Taylor terms of TRADES under attack and under transfer.

    python studies/rat_tables.py --out rat-tables

Writes `taylor.md`: clean accuracy, PGD-20, CW-20 (PGD on the margin) and the fast tier, for which
the paper has AutoAttack; and `transfer.md`: accuracy on PGD-20 and CW-20 examples of a network that
was adversarially trained in the same setting from other weights.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from paper_tables import EPS, OPTIONS, epochs_of, slug, spread_of, train_rows, write
from running import Row, Study, main

import robaudit as ra

FIRST, BOTH = "[taylor]\neta = {}\n", "[taylor]\norder = 2\neta = {}\n"
TAYLOR = {
    "none": "",
    "order 1, 0.1": FIRST.format(0.1),
    "order 1, 0.3": FIRST.format(0.3),
    "order 2, 0.1": BOTH.format(0.1),
    "order 2, 0.2": BOTH.format(0.2),
    "order 2, 0.4": BOTH.format(0.4),
}
ROWS = {name: f'objective = "trades"\n{text}' for name, text in TAYLOR.items()}
SURROGATE = "surrogate"
PAPER = {  # clean, PGD-20, CW-20, AutoAttack; the paper's Table 1 has no row without terms
    "order 1, 0.1": ("82.86", "54.29", "52.24", "49.3"),
    "order 1, 0.3": ("83.96", "55.05", "52.54", "49.7"),
    "order 2, 0.1": ("83.47", "54.42", "52.28", "49.7"),
    "order 2, 0.2": ("84.13", "54.91", "52.53", "50.3"),
    "order 2, 0.4": ("84.14", "54.38", "51.56", "49.6"),
}
TRANSFER = {  # clean, PGD-20, CW-20 of TRADES with AWP, Table 4, CIFAR-10
    "none": ("82.78", "61.79", "59.42"),
    "order 2, 0.2": ("84.27", "62.56", "60.58"),
}


def run(study: Study) -> None:
    train_rows(study, {SURROGATE: ""}, "", offset=100)
    train_rows(study, ROWS, "")
    for seed in range(1 if study.smoke else study.given.seeds):
        for name in ROWS:
            study.once(
                f"met-{slug(name)}-{seed}", lambda n=name, s=seed: met(study, n, s) | {"name": n}
            )


def network(study: Study, name: str, seed: int) -> ra.Classifier:
    path: Path = study.out / f"{slug(name)}-{seed}" / "checkpoints"
    return ra.load(path / f"epoch_{epochs_of(study):03d}.safetensors", device="cpu")


def met(study: Study, name: str, seed: int) -> Row:
    """Accuracies in per cent under every attack, all judged on the network itself."""
    model, other = network(study, name, seed), network(study, SURROGATE, seed)
    part, threat = (
        ra.load_examples("digits", n=8 if study.smoke else None),
        ra.ThreatModel("linf", EPS),
    )
    few = ra.load_examples("digits", n=8 if study.smoke else 200)
    fast = ra.attacks.fast(model, few.x, few.y, threat, index=few.index)
    found: Row = {"fast": 100 * float(fast.robust.double().mean())}
    for key, loss in (("pgd", "ce"), ("cw", "margin")):
        own, foreign = (
            ra.attacks.pgd(f, part.x, part.y, threat, steps=20, loss=loss, index=part.index)
            for f in (model, other)
        )
        found["clean"] = 100 * float(own.correct.double().mean())
        found[key] = 100 * float(own.robust.double().mean())
        broken = ra.attacks.verify(model, part.x, foreign.x, part.y, threat).breaks
        found[f"transfer.{key}"] = 100 * float((own.correct & ~broken).double().mean())
    return found


def report(study: Study) -> None:
    found = [json.loads(path.read_text("utf-8")) for path in sorted(study.out.glob("met-*.json"))]
    for file, keys, paper in (
        ("taylor.md", ("clean", "pgd", "cw", "fast"), PAPER),
        ("transfer.md", ("clean", "transfer.pgd", "transfer.cw"), TRANSFER),
    ):
        lines = []
        for name in ROWS:
            if own := [row for row in found if row["name"] == name]:
                cells = [spread_of(own, key) for key in keys]
                lines.append([name, *cells, *paper.get(name, [""] * len(keys))])
        write(study, file, ("Taylor terms", *keys, *(f"paper: {key}" for key in keys)), lines)


if __name__ == "__main__":
    sys.exit(main(__doc__ or "", run, report, options=OPTIONS))
