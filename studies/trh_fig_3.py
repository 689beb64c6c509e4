"""The TrH paper's Figure 3, small: robust accuracy over the weight of the trace.

    python studies/trh_fig_3.py --out trh-fig-3

Writes `weights.md`, with AT and with TRADES; columns as in `rat_tables.py`, and the trace of the
whole network's Hessian. The paper draws AutoAttack on ImageNet: highest at 5e-4 with both losses,
hardly lower from 1e-4 to 1e-3.
"""

from __future__ import annotations

import sys

from paper_tables import OPTIONS, Setting, meet, met_lines, seeds_of, train_rows, write
from rat_tables import met, network
from running import Row, Study, main

import robaudit as ra

LOSSES = {"AT": "", "TRADES": 'objective = "trades"\n'}
WEIGHTS = (0, 5e-4, 5e-3, 5e-2, 0.5)
ROWS = {
    f"{loss}, {weight:g}": text + (f"[trh]\nweight = {weight}\n" if weight else "")
    for loss, text in LOSSES.items()
    for weight in WEIGHTS
}


def run(study: Study) -> None:
    rows = dict(list(ROWS.items())[::4]) if study.smoke else ROWS
    train_rows(study, rows, "")
    for seed in seeds_of(study):
        meet(study, rows, seed, lambda n, s=seed: all_of(study, n, s))


def all_of(study: Study, name: str, seed: int) -> Row:
    model = network(study, name, seed)
    part = ra.load_examples("digits", n=8 if study.smoke else 200)
    threat = ra.ThreatModel("linf", Setting.eps)
    made = ra.attacks.pgd(model, part.x, part.y, threat, steps=10, index=part.index)
    trace = ra.curvature.layer_traces(model, made.x, part.y).total
    return met(study, model, Setting()) | {"loss": float(made.loss.double().mean()), "trace": trace}


def report(study: Study) -> None:
    keys = ("clean", "pgd", "cw", "fast", "loss", "trace")
    write(study, "weights.md", ("loss, lambda", *keys), met_lines(study, ROWS, keys, {}))


if __name__ == "__main__":
    sys.exit(main(__doc__ or "", run, report, options=OPTIONS))
