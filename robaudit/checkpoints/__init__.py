"""From a checkpoint to a classifier, safely.

:mod:`.files` reads a checkpoint without running any of it; :mod:`.sources` opens the networks of
RobustBench, timm and torchvision. :mod:`.from_file` identifies the network: by what the user or the
file says, else by its keys and shapes (:mod:`.architectures`), without the prefixes and buffers
that training code adds (:mod:`.wrapping`). :mod:`.choosing` lets the data decide what is left open.
:func:`load` does all of this; :func:`inspect_file` describes a file without loading it. Names are
imported on first use, so that inspecting a file does not import torch.
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

__all__ = [*_HOME]

if TYPE_CHECKING:
    from robaudit.checkpoints.classifier import Classifier as Classifier
    from robaudit.checkpoints.classifier import Origin as Origin
    from robaudit.checkpoints.files.container import Container as Container
    from robaudit.checkpoints.files.container import read_container as read_container
    from robaudit.checkpoints.files.pickles import findings as findings
    from robaudit.checkpoints.files.reading import LoadedWeights as LoadedWeights
    from robaudit.checkpoints.files.reading import read_state_dict as read_state_dict
    from robaudit.checkpoints.files.severity import Finding as Finding
    from robaudit.checkpoints.inspection import Inspection as Inspection
    from robaudit.checkpoints.inspection import inspect_file as inspect_file
    from robaudit.checkpoints.loading import load as load
    from robaudit.checkpoints.normalization import Normalization as Normalization
    from robaudit.checkpoints.normalization import parse_normalization as parse_normalization
    from robaudit.checkpoints.samples import samples_dir as samples_dir


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
