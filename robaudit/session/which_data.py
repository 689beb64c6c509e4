"""Which data a checkpoint is audited on where none are named: those it was trained on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from robaudit.checkpoints.asking import best_accuracy
from robaudit.checkpoints.trained_on import TrainedOn, trained_on
from robaudit.data import load_examples
from robaudit.data.places import root_of, usual_places
from robaudit.datasets import CORRUPTED, DATA_SETS
from robaudit.display import Display
from robaudit.errors import DataError
from robaudit.request import AUTO, Request

R = TypeVar("R", bound=Request)

_ASKED = 256
# Of ten classes: what a network is right on that takes images of any size, and knows these.
_KNOWN = 0.5


def with_data(asked: R, sources: Sequence[str], display: Display | None = None) -> R:
    """The request with the data named; the display is told how that was found out.

    Raises:
        DataError: the set is nowhere, or nothing says which it is.
        CheckpointError: the checkpoint cannot be read.
    """
    if asked.data != AUTO:
        return asked
    if not sources:
        return asked.changed(data="digits")
    source = sources[0]
    found = trained_on(source, asked)
    names, why = _sets(found)
    if not names and not found.recorded and found.takes is None:
        return asked.changed(data="digits")  # loading says why it is no known network
    there = {name: place for name in names if (place := _place(name, asked)) is not None}
    doubtful = "digits" in there and (1, 28, 28) in (found.takes or {})
    if doubtful and not found.fixed:
        del there["digits"]  # another network for each size: the larger images are the usual ones
    if len(there) > 1 or (there and doubtful and found.fixed):
        right = _asked(source, list(there), asked)
        there = {name: there[name] for name in there if right[name] == max(right.values())}
        if "digits" in there and right["digits"] < _KNOWN:
            there = {}
    if not there:
        raise _nowhere(source, names, why, asked)
    name = next(iter(there))
    if display is not None and name != "digits":
        where = there[name] or "the package"
        display.note(f"--data {name}, in {where}: {why}")
    data = f"imagefolder:{there[name]}" if name == "imagenet" else name
    return asked.changed(data=data)


def with_clean(asked: R, clean: str | None = None) -> R:
    """A request for corrupted images, turned into one for the clean ones where they are at hand.

    Args:
        asked: with the data named, as :func:`robaudit.data.open_corrupted` takes it.
        clean: name of the clean set, where it is stated.
    """
    if clean is not None:
        return asked.changed(data=clean)
    known = CORRUPTED.get(asked.data)
    if known is None:
        return asked
    folder = asked.data_dir
    named = [] if folder is None else [folder, folder.expanduser().absolute().parent]
    for place in (*named, None):
        there = _place(known.clean, asked.changed(data_dir=place))
        if there is not None and known.clean == "imagenet":
            return asked.changed(data=f"imagefolder:{there}")
        if there is not None:
            return asked.changed(data=known.clean, data_dir=place)
    return asked


def _sets(found: TrainedOn) -> tuple[list[str], str]:
    """The sets it may be, and the reason in words."""
    if found.recorded:
        return [found.recorded], "the checkpoint's own record"
    takes = dict(found.takes or {})
    names = [
        name
        for name, known in DATA_SETS.items()
        if takes.get(known.image) in (known.classes, known.classes + 1, -1)
    ]
    image = DATA_SETS[names[0]].image if names else next(iter(takes), None)
    if image is None:
        return [], "it takes images of no usual size"
    size = "x".join(map(str, image))
    return names, f"the network takes images of {size} and has {takes[image]} outputs"


def _place(name: str, asked: Request) -> Path | str | None:
    """Where a set is, ``""`` where it needs no place, ``None`` where it is not."""
    if name == "digits":
        return ""
    if name == "imagenet":
        places = usual_places() if asked.data_dir is None else iter([asked.data_dir])
        folders = (place / "imagenet" / "val" for place in places)
        return next((folder for folder in folders if folder.is_dir()), None)
    return root_of(name, asked.data_dir)


def _nowhere(source: str, names: Sequence[str], why: str, asked: Request) -> DataError:
    if not names:
        return DataError(
            f"{source}: nothing says which data it was trained on: {why}",
            "Name them: --data FILE.npz, --data imagefolder:DIR, or a set's name.",
        )
    places = asked.data_dir or "./data, ~/data and ROBAUDIT_DATA_DIR"
    listed = " or ".join(names)
    if names == ["imagenet"]:
        advice = "Type --data imagefolder:DIR, the folder with a sub-folder for each class."
    else:
        advice = f"Type --data {names[0]} --download, or name its folder: --data-dir DIR."
    return DataError(f"{source} needs {listed} ({why}), which is not in {places}", advice)


def _asked(source: str, names: Sequence[str], asked: Request) -> dict[str, float]:
    """How often its best candidate is right on each set."""
    right = {}
    for name in names:
        examples = load_examples(name, n=None, at_most=_ASKED, data_dir=asked.data_dir)
        right[name] = best_accuracy(source, asked, examples)
    return right
