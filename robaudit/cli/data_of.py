"""Which data a checkpoint is measured on where ``--data`` does not say: those it was trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from robaudit.cli.messages import say
from robaudit.cli.options import AUTO, Settings
from robaudit.errors import DataError

if TYPE_CHECKING:
    from robaudit.checkpoints.trained_on import TrainedOn

_SETS: Mapping[str, tuple[tuple[int, int, int], int]] = {
    "cifar10": ((3, 32, 32), 10),
    "svhn": ((3, 32, 32), 10),
    "cifar100": ((3, 32, 32), 100),
    "mnist": ((1, 28, 28), 10),
    "fashion-mnist": ((1, 28, 28), 10),
    "digits": ((1, 8, 8), 10),
    "imagenet": ((3, 224, 224), 1000),
}
"""Images and classes of the sets that a network may have been trained on."""

_ASKED = 256
# Of ten classes: what a network is right on that takes images of any size, and knows these.
_KNOWN = 0.5


def with_data(settings: Settings, checkpoints: Sequence[str]) -> Settings:
    """The settings with the data named; what was found out is said on stderr.

    Raises:
        DataError: the set is nowhere, or nothing says which it is.
        CheckpointError: the checkpoint cannot be read.
    """
    if settings.data != AUTO:
        return settings
    if not checkpoints:
        return replace(settings, data="digits")
    from robaudit.checkpoints.trained_on import trained_on

    source = checkpoints[0]
    weights = None if settings.weights is None else settings.weights.value
    found = trained_on(
        source, arch=settings.arch, member=settings.member, weights=weights,
        trusted=settings.trust_pickle,
    )  # fmt: skip
    names, why = _sets(found)
    if not names and not found.recorded and found.takes is None:
        return replace(settings, data="digits")  # loading says why it is no known network
    there = {name: place for name in names if (place := _place(name, settings)) is not None}
    doubtful = "digits" in there and (1, 28, 28) in (found.takes or {})
    if doubtful and not found.fixed:
        del there["digits"]  # another network for each size: the larger images are the usual ones
    if len(there) > 1 or (there and doubtful and found.fixed):
        right = _asked(source, list(there), settings)
        there = {name: there[name] for name in there if right[name] == max(right.values())}
        if "digits" in there and right["digits"] < _KNOWN:
            there = {}
    if not there:
        raise _nowhere(source, names, why, settings)
    name = next(iter(there))
    if not settings.quiet and name != "digits":
        where = there[name] or "the package"
        say(f"--data {name}, in {where}: {why}")
    data = f"imagefolder:{there[name]}" if name == "imagenet" else name
    return replace(settings, data=data)


def _sets(found: TrainedOn) -> tuple[list[str], str]:
    """The sets it may be, and the reason in words."""
    if found.recorded:
        return [found.recorded], "the checkpoint's own record"
    takes = dict(found.takes or {})
    names = [
        name
        for name, (image, classes) in _SETS.items()
        if takes.get(image) in (classes, -1) or (takes.get(image, 0) == classes + 1)
    ]
    image = _SETS[names[0]][0] if names else next(iter(takes), None)
    if image is None:
        return [], "it takes images of no usual size"
    size = "x".join(map(str, image))
    return names, f"the network takes images of {size} and has {takes[image]} outputs"


def _place(name: str, settings: Settings) -> Path | str | None:
    """Where a set is, ``""`` where it needs no place, ``None`` where it is not."""
    from robaudit.data.places import root_of, usual_places

    if name == "digits":
        return ""
    if name == "imagenet":
        places = usual_places() if settings.data_dir is None else iter([settings.data_dir])
        folders = (place / "imagenet" / "val" for place in places)
        return next((folder for folder in folders if folder.is_dir()), None)
    return root_of(name, settings.data_dir)


def _nowhere(source: str, names: Sequence[str], why: str, settings: Settings) -> DataError:
    if not names:
        return DataError(
            f"{source}: nothing says which data it was trained on: {why}",
            "Name them: --data FILE.npz, --data imagefolder:DIR, or a set's name.",
        )
    places = settings.data_dir or "./data, ~/data and ROBAUDIT_DATA_DIR"
    listed = " or ".join(names)
    if names == ["imagenet"]:
        advice = "Type --data imagefolder:DIR, the folder with a sub-folder for each class."
    else:
        advice = f"Type --data {names[0]} --download, or name its folder: --data-dir DIR."
    return DataError(f"{source} needs {listed} ({why}), which is not in {places}", advice)


def _asked(source: str, names: Sequence[str], settings: Settings) -> dict[str, float]:
    """How often its best candidate is right on each set."""
    from robaudit.checkpoints.asking import best_accuracy
    from robaudit.data import load_examples

    weights = None if settings.weights is None else settings.weights.value
    right = {}
    for name in names:
        examples = load_examples(name, n=None, at_most=_ASKED, data_dir=settings.data_dir)
        right[name] = best_accuracy(
            source, examples, arch=settings.arch, normalize=settings.normalize,
            member=settings.member, weights=weights,
        )  # fmt: skip
    return right
