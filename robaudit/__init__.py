"""robaudit: audits trained image classifiers for adversarial robustness.

Public names are loaded on first use, so that ``import robaudit`` costs next to nothing and does
not import torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOME = {
    "Classifier": "robaudit.checkpoints",
    "load": "robaudit.checkpoints",
    "load_examples": "robaudit.data",
    "Examples": "robaudit.types",
    "ThreatModel": "robaudit.types",
    "RobauditError": "robaudit.errors",
    "Report": "robaudit.schema",
    "run_audit": "robaudit.audit",
}
_ROOMS = ("attacks", "curvature", "flatness", "statistics")

__all__ = [*_HOME, *_ROOMS, "__version__"]

if TYPE_CHECKING:
    from robaudit import attacks, curvature, flatness, statistics
    from robaudit.audit import run_audit
    from robaudit.checkpoints import Classifier, load
    from robaudit.data import load_examples
    from robaudit.errors import RobauditError
    from robaudit.schema import Report
    from robaudit.types import Examples, ThreatModel


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    if name in _ROOMS:
        return import_module(f"robaudit.{name}")
    raise AttributeError(f"module 'robaudit' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
