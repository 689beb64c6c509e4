"""Imports RobustBench's zoo without running RobustBench's own ``__init__``.

The latter imports evaluation code, which needs packages that a fresh machine lacks
(``pkg_resources``, ``autoattack``); the zoo needs none of them. While the zoo is in use, an empty
module replaces the package. Afterwards the zoo's modules are removed from ``sys.modules`` again, so
that a later ``import robustbench`` is not affected.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import sys
import threading
import warnings
from collections.abc import Iterator
from importlib.machinery import ModuleSpec
from importlib.util import module_from_spec
from types import ModuleType
from typing import Any

from robaudit.checkpoints.sources.catalogue import INSTALL, Entry, zoo_folder
from robaudit.errors import UsageError, first_line

_PACKAGE = "robustbench"
_lock = threading.RLock()
_kept: dict[str, ModuleType] = {}


@contextlib.contextmanager
def zoo_importable() -> Iterator[None]:
    """While this lasts, ``robustbench.model_zoo`` can be imported, quietly.

    Raises:
        UsageError: RobustBench is not installed.
    """
    with (
        _lock,
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),  # some entries print while they are built
    ):
        warnings.simplefilter("ignore")
        theirs = _PACKAGE in sys.modules  # the user has it, and it works
        if not theirs:
            if not _kept:
                _kept[_PACKAGE] = _stand_in()
            sys.modules.update(_kept)
        try:
            yield
        finally:
            if not theirs:
                ours = [n for n in sys.modules if n == _PACKAGE or n.startswith(f"{_PACKAGE}.")]
                _kept.update({name: sys.modules.pop(name) for name in ours})


def _stand_in() -> ModuleType:
    spec = ModuleSpec(_PACKAGE, None, is_package=True)
    spec.submodule_search_locations = [str(zoo_folder())]
    return module_from_spec(spec)


def zoo_module(name: str) -> Any:
    """A module of ``robustbench.model_zoo``, to be called within :func:`zoo_importable`.

    Raises:
        UsageError: it, or what it needs, is not installed.
    """
    try:
        return importlib.import_module(f"{_PACKAGE}.model_zoo.{name}")
    except ImportError as error:
        raise UsageError(
            f"RobustBench's zoo cannot be imported: {first_line(error)}", INSTALL
        ) from error


def zoo_fields(entry: Entry) -> dict[str, Any]:
    """The zoo's fields of an entry; ``["model"]`` builds the network."""
    enums = zoo_module("enums")
    table = zoo_module("models").model_dicts[enums.BenchmarkDataset(entry.dataset)]
    fields: dict[str, Any] = table[enums.ThreatModel(entry.threat)][entry.name]
    return fields
