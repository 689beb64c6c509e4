"""The RAT paper's Tables 1 and 4 and its Figure 2, small: Taylor terms of TRADES.

    python studies/rat_tables.py --out rat-tables

Writes `taylor.md`: clean accuracy, PGD-20, CW-20 (PGD on the margin) and the fast tier, for which
the paper has AutoAttack; `transfer.md`: accuracy on PGD-20 and CW-20 examples of a network that was
adversarially trained in the same setting from other weights; and `surfaces.md`: how smooth the loss
is around images.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from paper_tables import (
    EPS,
    OPTIONS,
    Setting,
    epochs_of,
    meet,
    met_lines,
    seeds_of,
    slug,
    train_rows,
    write,
)
from running import Row, Study, main

import robaudit as ra

FIRST, BOTH = "[taylor]\neta = {}\n", "[taylor]\norder = 2\neta = {}\n"
TAYLOR = {
    "none": "",
    **{f"order 1, {eta}": FIRST.format(eta) for eta in (0.05, 0.1, 0.2, 0.3, 0.4)},
    **{f"order 2, {eta}": BOTH.format(eta) for eta in (0.05, 0.1, 0.2, 0.3, 0.4)},
}
ROWS = {name: f'objective = "trades"\n{text}' for name, text in TAYLOR.items()}
SURROGATE = "surrogate"
PAPER = {  # clean, PGD-20, CW-20, AutoAttack; the paper's Table 1 has no row without terms
    "order 1, 0.05": ("83.19", "53.98", "52.12", "48.2"),
    "order 1, 0.1": ("82.86", "54.29", "52.24", "49.3"),
    "order 1, 0.2": ("83.55", "54.86", "52.65", "48.8"),
    "order 1, 0.3": ("83.96", "55.05", "52.54", "49.7"),
    "order 1, 0.4": ("83.93", "54.65", "52.23", "48.6"),
    "order 2, 0.05": ("83.25", "54.07", "51.93", "48.4"),
    "order 2, 0.1": ("83.47", "54.42", "52.28", "49.7"),
    "order 2, 0.2": ("84.13", "54.91", "52.53", "50.3"),
    "order 2, 0.3": ("84.27", "54.36", "51.80", "48.9"),
    "order 2, 0.4": ("84.14", "54.38", "51.56", "49.6"),
}
TRANSFER = {  # clean, PGD-20, CW-20 of TRADES with AWP, Table 4, CIFAR-10
    "none": ("82.78", "61.79", "59.42"),
    "order 2, 0.2": ("84.27", "62.56", "60.58"),
}


SURFACES = ("range", "curvature", "roughness")


def run(study: Study) -> None:
    train_rows(study, {SURROGATE: ""}, "", offset=100)
    rows = {name: ROWS[name] for name in TRANSFER} if study.smoke else ROWS
    train_rows(study, rows, "")
    for seed in seeds_of(study):
        meet(study, rows, seed, lambda n, s=seed: all_of(study, n, s))


def network(study: Study, name: str, seed: int, kind: str = "checkpoints") -> ra.Classifier:
    path: Path = study.out / f"{slug(name)}-{seed}" / kind
    return ra.load(path / f"epoch_{epochs_of(study):03d}.safetensors", device="cpu")


def met(study: Study, model: ra.Classifier, setting: Setting) -> Row:
    """Accuracies in per cent: clean, PGD-20 and CW-20 on all test images, the fast tier on 200."""
    part = ra.load_examples("digits", n=8 if study.smoke else None)
    few = ra.load_examples("digits", n=8 if study.smoke else 200)
    threat = ra.ThreatModel(setting.norm, setting.eps)
    fast = ra.attacks.fast(model, few.x, few.y, threat, index=few.index)
    found: Row = {"fast": 100 * float(fast.robust.double().mean())}
    for key, loss in (("pgd", "ce"), ("cw", "margin")):
        own = ra.attacks.pgd(model, part.x, part.y, threat, steps=20, loss=loss, index=part.index)
        found["clean"] = 100 * float(own.correct.double().mean())
        found[key] = 100 * float(own.robust.double().mean())
    return found


def all_of(study: Study, name: str, seed: int) -> Row:
    model = network(study, name, seed)
    found = met(study, model, Setting()) | surfaces(study, model)
    if name in TRANSFER:
        found |= transferred(study, model, network(study, SURROGATE, seed))
    return found


def transferred(study: Study, model: ra.Classifier, other: ra.Classifier) -> Row:
    """Accuracies in per cent on the other network's examples, judged on the network itself."""
    part = ra.load_examples("digits", n=8 if study.smoke else None)
    threat, found = ra.ThreatModel("linf", EPS), {}
    with torch.no_grad():
        correct = model(part.x).argmax(1) == part.y
    for key, loss in (("pgd", "ce"), ("cw", "margin")):
        made = ra.attacks.pgd(other, part.x, part.y, threat, steps=20, loss=loss, index=part.index)
        broken = ra.attacks.verify(model, part.x, made.x, part.y, threat).breaks
        found[f"transfer.{key}"] = 100 * float((correct & ~broken).double().mean())
    return found


def surfaces(study: Study, model: ra.Classifier) -> Row:
    """How smooth the loss is around 50 images, over 21 x 21 places within twice the radius.

    The axes are those of the paper's Figure 2, the sign of the gradient and a random sign pattern.
    """
    part = ra.load_examples("digits", n=8 if study.smoke else 50)
    places = torch.linspace(-2 * EPS, 2 * EPS, 5 if study.smoke else 21)
    found = ra.flatness.input_surface(model, part.x, part.y, places, places, index=part.index)
    values = smoothness(found.clean, 4 / (len(places) - 1))
    return {f"surface.{key}": value for key, value in zip(SURFACES, values, strict=True)}


def smoothness(loss: torch.Tensor, step: float) -> tuple[float, float, float]:
    """Range, curvature and their ratio of losses ``(t, s, images)``, means over the images.

    Curvature is the mean absolute second difference along the axes for a step of one radius, of
    which a step of the grid is ``step``. The ratio does not grow with the loss.
    """
    extent = loss.amax((0, 1)) - loss.amin((0, 1))
    along, across = (loss.diff(n=2, dim=k).abs().mean((0, 1)) / step**2 for k in (1, 0))
    bend = (along + across) / 2
    return float(extent.mean()), float(bend.mean()), float((bend / extent).mean())


def report(study: Study) -> None:
    for file, keys, paper in (
        ("taylor.md", ("clean", "pgd", "cw", "fast"), PAPER),
        ("transfer.md", ("clean", "transfer.pgd", "transfer.cw"), TRANSFER),
        ("surfaces.md", tuple(f"surface.{key}" for key in SURFACES), {}),
    ):
        names = TRANSFER if paper is TRANSFER else ROWS
        beside = (f"paper: {key}" for key in keys if paper)
        lines = met_lines(study, names, keys, paper)
        write(study, file, ("Taylor terms", *keys, *beside), lines)


if __name__ == "__main__":
    sys.exit(main(__doc__ or "", run, report, options=OPTIONS))
