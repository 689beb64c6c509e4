"""RobustBench's leaderboards, from the description of the installed package. No torch.

It has one table for each data set and threat model.
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
    one was found; then ``autoattack_acc`` is AutoAttack's, and ``unreliable`` stands where
    RobustBench says that this is. Empty where the package does not list the network.
    """
    place = entry.dataset, entry.threat, entry.name
    facts = _leaderboards().get(place, {})
    percent, robust = _AUTOATTACK.get("/".join(place)), facts.get("robust_acc")
    if percent is None or not isinstance(robust, float) or not robust < percent / 100:
        return facts
    unreliable = {"unreliable": True} if "/".join(place) in _UNRELIABLE else {}
    return {**facts, "autoattack_acc": round(percent / 100, 6), **unreliable}


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


# AutoAttack's accuracy, in percent, of the networks whose leaderboard figure is another attack's,
# which the package does not say. From RobustBench's repository, model_info/DATASET/THREAT/NAME.json
# (keys autoattack_acc, external, unreliable) as of commits 430c836, c288dc4, 6b78743, 34dda3a,
# f250f41, 1524b72, 264e92d, 53bd7b8, 84d4dd5, fc15366 and, in its footnotes, 2b95e7e; the two of
# Gowal2021 without a file there from the leaderboard of March 2024.
_AUTOATTACK = {
    "cifar10/Linf/Amini2024MeanSparse_Ra_WRN_70_16": 72.08,
    "cifar10/Linf/Amini2024MeanSparse_S-WRN-94-16": 75.28,
    "cifar10/Linf/Bai2024MixedNUTS": 70.08,
    "cifar10/Linf/Gowal2020Uncovering_28_10_extra": 62.80,
    "cifar10/Linf/Gowal2020Uncovering_34_20": 56.86,
    "cifar10/Linf/Gowal2020Uncovering_70_16": 57.20,
    "cifar10/Linf/Gowal2020Uncovering_70_16_extra": 65.88,
    "cifar10/Linf/Gowal2021Improving_28_10_ddpm_100m": 63.44,
    "cifar10/Linf/Gowal2021Improving_70_16_ddpm_100m": 66.11,
    "cifar10/Linf/Gowal2021Improving_R18_ddpm_100m": 58.63,
    "cifar10/Linf/Kang2021Stable": 71.28,
    "cifar10/Linf/Rebuffi2021Fixing_106_16_cutmix_ddpm": 64.64,
    "cifar10/Linf/Rebuffi2021Fixing_28_10_cutmix_ddpm": 60.75,
    "cifar10/Linf/Rebuffi2021Fixing_70_16_cutmix_ddpm": 64.25,
    "cifar10/Linf/Rebuffi2021Fixing_70_16_cutmix_extra": 66.58,
    "cifar10/L2/Amini2024MeanSparse_S-WRN-70-16": 87.28,
    "cifar100/Linf/Amini2024MeanSparse_S-WRN-70-16": 44.78,
    "cifar100/Linf/Bai2024MixedNUTS": 41.91,
    "cifar100/Linf/Wang2023Better_WRN-28-10": 38.83,
    "cifar100/Linf/Wang2023Better_WRN-70-16": 42.67,
    "imagenet/Linf/Amini2024MeanSparse_ConvNeXt-L": 59.64,
    "imagenet/Linf/Amini2024MeanSparse_Swin-L": 62.12,
    "imagenet/Linf/Bai2024MixedNUTS": 58.62,
}
_UNRELIABLE = {"cifar10/Linf/Kang2021Stable"}
