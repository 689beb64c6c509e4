"""From a checkpoint to a classifier, safely.

A checkpoint comes from anywhere and may be anything. :mod:`.files` reads it without running it;
:mod:`.sources` opens what zoos and libraries offer. :mod:`.from_file` tells the network by what
the user or the file says, else by its keys and shapes (:mod:`.architectures`), after
:mod:`.wrapping` has taken off what training code puts around them. :mod:`.choosing` lets the data
decide what is left open. :func:`load` does all of it, and :mod:`.inspection` says what can be said
without loading. Names are loaded on first use, so that looking at a file does not import torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

_HOME = {
    "Classifier": "classifier",
    "Container": "files.container",
    "Finding": "files.severity",
    "Inspection": "inspection",
    "LoadedWeights": "files.reading",
    "Normalization": "normalization",
    "Origin": "classifier",
    "findings": "files.pickles",
    "inspect_file": "inspection",
    "load": "loading",
    "parse_normalization": "normalization",
    "read_container": "files.container",
    "read_state_dict": "files.reading",
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
    from robaudit.checkpoints.files.container import Container, read_container
    from robaudit.checkpoints.files.pickles import findings
    from robaudit.checkpoints.files.reading import LoadedWeights, read_state_dict
    from robaudit.checkpoints.files.severity import Finding
    from robaudit.checkpoints.inspection import Inspection, inspect_file
    from robaudit.checkpoints.loading import load
    from robaudit.checkpoints.normalization import Normalization, parse_normalization
    from robaudit.checkpoints.samples import samples_dir


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
