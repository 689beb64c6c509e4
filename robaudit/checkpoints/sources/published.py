"""What RobustBench publishes of a network: its leaderboards, from the installed package. No torch.

The package's own description holds them as tables, one for each data set and threat model.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, distribution

from robaudit.checkpoints.sources.catalogue import Entry

Facts = Mapping[str, float | bool | str]

_DATASETS = {"CIFAR-10": "cifar10", "CIFAR-100": "cifar100", "ImageNet": "imagenet"}
_TAG = re.compile(r"<[^>]*>|\*")
_PERCENT = re.compile(r"(\d+(?:\.\d+)?)%")
_EPS = re.compile(r"eps=([0-9./]+)")


def published(entry: Entry) -> Facts:
    """``clean_acc``, ``robust_acc`` or ``corruptions_acc`` (fractions), ``architecture``, ``eps``.

    ``robust_acc`` is the leaderboard's figure: AutoAttack's, or that of a stronger attack where
    one was found. Empty where the package does not list the network.
    """
    return _leaderboards().get((entry.dataset, entry.threat, entry.name), {})


@functools.cache
def _leaderboards() -> Mapping[tuple[str, str, str], Facts]:
    try:
        text = distribution("robustbench").read_text("METADATA") or ""
    except PackageNotFoundError:
        return {}
    found: dict[tuple[str, str, str], Facts] = {}
    dataset, threat, eps = "", "", ""
    for line in text.splitlines():
        if line.startswith("#"):
            level, _, title = line.partition(" ")
            if len(level) <= 3:
                dataset, threat = _DATASETS.get(title.strip(), ""), ""
            else:
                threat = _threat(title)
                given = _EPS.search(title)
                eps = given[1] if given else ""
        elif dataset and threat and line.startswith("|"):
            row = [
                " ".join(_TAG.sub("", cell).split()) for cell in line.strip().strip("|").split("|")
            ]
            if facts := _facts(row, threat, eps):
                found[dataset, threat, row[1]] = facts
    return found


def _threat(title: str) -> str:
    if "Corruptions" in title:
        return "corruptions"
    return next((norm for norm in ("Linf", "L2") if title.startswith(norm)), "")


def _facts(row: list[str], threat: str, eps: str) -> Facts:
    if len(row) < 6:
        return {}
    clean, robust = (_PERCENT.fullmatch(cell) for cell in row[3:5])
    if clean is None or robust is None:
        return {}
    measured = "corruptions_acc" if threat == "corruptions" else "robust_acc"
    facts: dict[str, float | bool | str] = {
        "clean_acc": _fraction(clean[1]),
        measured: _fraction(robust[1]),
        "architecture": row[5],
    }
    return {**facts, "eps": eps} if eps else facts


def _fraction(percent: str) -> float:
    return round(float(percent) / 100, 6)
