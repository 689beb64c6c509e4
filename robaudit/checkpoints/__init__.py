"""From a file to a classifier, safely: reading, pickle findings, identification, architectures.

A checkpoint comes from anywhere and may be anything, so a file is judged from its bytes before a
loader sees it (:mod:`.container`, :mod:`.pickles`, :mod:`.inspection`: without torch, and without
running anything), and read only by loaders that cannot run code (:mod:`.reading`).
:func:`load` then finds out which network it is and fits the weights into it. Names are loaded on
first use, so that looking at a file does not import torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

_HOME = {
    "Classifier": "classifier",
    "Container": "container",
    "Finding": "severity",
    "Inspection": "inspection",
    "LoadedWeights": "reading",
    "Normalization": "normalization",
    "Origin": "classifier",
    "findings": "pickles",
    "inspect_file": "inspection",
    "load": "loading",
    "parse_normalization": "normalization",
    "read_container": "container",
    "read_state_dict": "reading",
    "samples_dir": "samples",
}

__all__ = [
    "Classifier",
    "Container",
    "Finding",
    "Inspection",
    "LoadedWeights",
    "Normalization",
    "Origin",
    "findings",
    "inspect_file",
    "load",
    "parse_normalization",
    "read_container",
    "read_state_dict",
    "samples_dir",
]

if TYPE_CHECKING:
    from robaudit.checkpoints.classifier import Classifier, Origin
    from robaudit.checkpoints.container import Container, read_container
    from robaudit.checkpoints.inspection import Inspection, inspect_file
    from robaudit.checkpoints.loading import load
    from robaudit.checkpoints.normalization import Normalization, parse_normalization
    from robaudit.checkpoints.pickles import findings
    from robaudit.checkpoints.reading import LoadedWeights, read_state_dict
    from robaudit.checkpoints.samples import samples_dir
    from robaudit.checkpoints.severity import Finding


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
