"""What the shell completes beside files and choices. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import robaudit
from robaudit.datasets import CORRUPTED, DATA_SETS
from robaudit.errors import RobauditError

Complete = Callable[[str], list[str]]


def data_sets(incomplete: str) -> list[str]:
    """Data sets by name; anything else is a file, which the shell completes itself."""
    return _beginning(incomplete, [*DATA_SETS, *CORRUPTED, "imagefolder:", "corruptions:"])


def probes(incomplete: str) -> list[str]:
    """Probes that ``--also`` adds."""
    from robaudit.audit.probes import known

    return _beginning(incomplete, sorted(probe.name for probe in known()))


def recipes(incomplete: str) -> list[str]:
    """The recipes that robaudit brings along."""
    folder = Path(robaudit.__file__).parent / "training" / "recipes"
    found = (path.relative_to(folder).as_posix() for path in folder.rglob("*.toml"))
    return _beginning(incomplete, sorted(name.removesuffix(".toml") for name in found))


def zoo_names(incomplete: str) -> list[str]:
    """Entries of an installed zoo; anything else is a file."""
    prefix = "robustbench:"
    if not incomplete.startswith(prefix):
        return [prefix] if incomplete and prefix.startswith(incomplete) else []
    from robaudit.checkpoints.sources.catalogue import catalogue

    try:
        return _beginning(incomplete, [entry.text for entry in catalogue()])
    except RobauditError:  # it is not installed
        return []


def listed(names: Iterable[str]) -> Complete:
    """The last of several names that are separated by commas."""
    known = tuple(names)

    def complete(incomplete: str) -> list[str]:
        before, comma, last = incomplete.rpartition(",")
        left = [name for name in known if name not in before.split(",")]
        return [f"{before}{comma}{name}" for name in _beginning(last, left)]

    return complete


def _beginning(incomplete: str, names: Iterable[str]) -> list[str]:
    return [name for name in names if name.startswith(incomplete)]
