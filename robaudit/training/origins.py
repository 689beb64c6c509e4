"""The training run of a checkpoint, and its hyper-parameters as the run recorded them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

RUN, CHECKPOINTS, AVERAGED = "run.json", "checkpoints", "averaged"
"""In the folder of a training run: its settings, and the folders of its checkpoints."""
BEST_FILE, LAST = "best.pt", "last.pt"
"""There, too, where some examples are held out: the network of the best epoch and of the last."""

_EPOCH = re.compile(r"epoch_(\d+)")


def run_of(checkpoint: Path) -> Path | None:
    """The folder of the training run, where ``robaudit train`` made it."""
    folder = checkpoint.absolute().parent
    if checkpoint.name in (BEST_FILE, LAST) and (folder / RUN).is_file():
        return folder
    known = folder.name in (CHECKPOINTS, AVERAGED) and (folder.parent / RUN).is_file()
    return folder.parent if known else None


def hyperparameters(checkpoint: Path) -> dict[str, Any]:
    """What decided the weights of a checkpoint of ``robaudit train``, as its run recorded it.

    Numbers, texts and tables of them by name, with the epoch. A setting without influence on these
    weights is left out: averaging changes the averaged network alone.

    Returns:
        Nothing for another file, or where the record cannot be read.
    """
    run = run_of(checkpoint)
    if run is None:
        return {}
    try:
        said = json.loads((run / RUN).read_text("utf-8"))
        recipe = dict(said["recipe"])
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    for name in ("about", "threat", "epochs"):  # the threat as stated, not with its radius
        recipe.pop(name, None)
    recipe["objective"] = {"kind": recipe.get("objective"), "penalty": recipe.pop("penalty", None)}
    if checkpoint.absolute().parent.name != AVERAGED:
        recipe["swa"] = None
    others = ("architecture", "normalization", "precision", "data", "threat")
    found = {**recipe, **{name: said[name] for name in others if name in said}}
    epoch = _EPOCH.search(checkpoint.name)
    # The length of a schedule is part of it; without one, training longer only adds epochs.
    schedule = found.get("schedule")
    if isinstance(schedule, dict) and schedule.get("kind") in ("cosine", "cyclic"):
        found["schedule"] = {**schedule, "epochs": said["recipe"].get("epochs")}
    return found | ({"epoch": int(epoch[1])} if epoch else {})
