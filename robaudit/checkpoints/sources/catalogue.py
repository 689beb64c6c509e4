"""The entries of RobustBench's zoo, read from its source text: no torch, nothing is run.

The zoo is three tables in Python, one a data set, of entries ``(NAME, {"model": ..., "gdrive_id":
...})``. Reading them as text gives the names and files in a moment.
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from robaudit.datasets import DATA_SETS
from robaudit.errors import UsageError, did_you_mean

CLASSES = {name: DATA_SETS[name].classes for name in ("cifar10", "cifar100", "imagenet")}
INSTALL = "Install it: pip install 'robaudit[robustbench]'"
_FORM = "Write it as robustbench:DATASET/THREAT/NAME, as in robustbench:cifar10/Linf/Standard."


@dataclass(frozen=True)
class Entry:
    """One network of the zoo.

    Attributes:
        dataset, threat, name: as RobustBench writes them.
        drive_ids: where its files are published; empty where timm or torchvision has the weights.
        ensemble: whether it has several files, ``NAME.pt_m0.pt``, ``NAME.pt_m1.pt``, ...
        preprocessing: what RobustBench does to images of ImageNet, as in ``Res256Crop224``.
    """

    dataset: str
    threat: str
    name: str
    drive_ids: tuple[str, ...]
    ensemble: bool
    preprocessing: str | None

    @property
    def text(self) -> str:
        """Its name as a source."""
        return f"robustbench:{self.dataset}/{self.threat}/{self.name}"

    @property
    def file_names(self) -> tuple[str, ...]:
        """Its files in ``DATASET/THREAT`` of the model folder, as RobustBench names them."""
        if not self.ensemble:
            return (f"{self.name}.pt",)
        return tuple(f"{self.name}.pt_m{i}.pt" for i in range(len(self.drive_ids)))

    @property
    def timm_name(self) -> str:
        """The name RobustBench registers it by in timm, where it does."""
        name = self.name.lower().replace("-", "_")
        return f"{name}_{self.dataset}_{self.threat.lower()}"


def zoo_folder() -> Path:
    """Where the installed RobustBench is, found without importing it.

    Raises:
        UsageError: it is not installed.
    """
    try:
        spec = find_spec("robustbench")
    except ValueError:  # a module of that name without a spec
        spec = None
    if spec is None or not spec.submodule_search_locations:
        raise UsageError("RobustBench is not installed", INSTALL)
    return Path(next(iter(spec.submodule_search_locations)))


def find_entry(name: str) -> Entry:
    """The entry of ``DATASET/THREAT/NAME``; ``corruptions_3d`` has the networks of ``corruptions``.

    Raises:
        UsageError: RobustBench is not installed, or there is no such entry.
    """
    parts = name.split("/")
    if len(parts) != 3 or not all(parts):
        raise UsageError(f"robustbench:{name} names no network", _FORM)
    entries = catalogue()
    dataset = _known(parts[0], CLASSES, "data set", name)
    threats = list(dict.fromkeys(e.threat for e in entries if e.dataset == dataset))
    threat = _known(parts[1].removesuffix("_3d"), threats, f"threat model of {dataset}", name)
    names = {e.name: e for e in entries if (e.dataset, e.threat) == (dataset, threat)}
    if parts[2] in names:
        return names[parts[2]]
    elsewhere = [e.text for e in entries if e.name == parts[2]]
    guess = did_you_mean(parts[2], names, 3, 0.7)
    raise UsageError(
        f"RobustBench has no network {parts[2]!r} for {dataset}/{threat}{guess}",
        f"It is there as {', '.join(elsewhere)}." if elsewhere else f"Known are {_some(names)}.",
    )


def _known(given: str, known: Mapping[str, object] | list[str], what: str, name: str) -> str:
    for entry in known:
        if given.lower() == entry.lower():
            return entry
    guess = did_you_mean(given, known)
    raise UsageError(
        f"robustbench:{name}: unknown {what} {given!r}{guess}", f"Known are {', '.join(known)}."
    )


def _some(names: Mapping[str, Entry]) -> str:
    listed = list(names)
    return ", ".join(listed[:8]) + (f", ... ({len(listed)} in all)" if len(listed) > 8 else "")


@functools.cache
def catalogue() -> tuple[Entry, ...]:
    """Every entry of the installed zoo, in its order.

    Raises:
        UsageError: RobustBench is not installed, or its tables are not written as they were.
    """
    folder = zoo_folder() / "model_zoo"
    entries: list[Entry] = []
    for dataset in CLASSES:
        file = folder / f"{dataset}.py"
        try:
            tree = ast.parse(file.read_text(encoding="utf-8"))
        except (OSError, SyntaxError, ValueError) as error:
            raise UsageError(f"RobustBench's zoo cannot be read: {error}", INSTALL) from error
        entries += _entries(tree, dataset)
    if not entries:
        raise UsageError("RobustBench's zoo has no entries that robaudit can read", INSTALL)
    return tuple(entries)


def _entries(tree: ast.Module, dataset: str) -> Iterator[Entry]:
    tables = {
        node.targets[0].id: node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
    }
    # The last table says which of the others is for which threat: (ThreatModel.Linf, linf).
    by_threat = {
        threat.attr: table.id
        for value in tables.values()
        for threat, table in _pairs(value)
        if isinstance(threat, ast.Attribute) and isinstance(table, ast.Name)
    }
    for threat_name, table_name in by_threat.items():
        for key, value in _pairs(tables.get(table_name)):
            if isinstance(key, ast.Constant) and isinstance(value, ast.Dict):
                yield _entry(dataset, threat_name, str(key.value), value)


def _pairs(table: ast.expr | None) -> Iterator[tuple[ast.expr, ast.expr]]:
    if isinstance(table, ast.Call) and table.args and isinstance(table.args[0], ast.List):
        for item in table.args[0].elts:
            if isinstance(item, ast.Tuple) and len(item.elts) == 2:
                yield item.elts[0], item.elts[1]


def _entry(dataset: str, threat: str, name: str, fields: ast.Dict) -> Entry:
    said = {
        key.value: ast.literal_eval(value)
        for key, value in zip(fields.keys, fields.values, strict=True)
        if isinstance(key, ast.Constant) and key.value in ("gdrive_id", "preprocessing")
    }
    ids = said.get("gdrive_id")
    ensemble = isinstance(ids, list)
    listed = tuple(ids) if isinstance(ids, list) else (ids,) if ids else ()
    return Entry(dataset, threat, name, listed, ensemble, said.get("preprocessing"))
