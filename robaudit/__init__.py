"""robaudit: audits trained image classifiers for adversarial robustness.

Public names are loaded on first use, so that ``import robaudit`` does not import torch.
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
    "read_report": "robaudit.report",
    "run_audit": "robaudit.audit",
    "audit_checkpoint": "robaudit.session",
    "straight_through": "robaudit.engine",
    "certify": "robaudit.certified",
    "certified_radii": "robaudit.certified",
    "Certificates": "robaudit.certified",
}
_ROOMS = ("attacks", "curvature", "flatness", "norms", "statistics")

__all__ = [*_HOME, *_ROOMS, "__version__"]

if TYPE_CHECKING:
    from robaudit import attacks as attacks
    from robaudit import curvature as curvature
    from robaudit import flatness as flatness
    from robaudit import norms as norms
    from robaudit import statistics as statistics
    from robaudit.audit import run_audit as run_audit
    from robaudit.certified import Certificates as Certificates
    from robaudit.certified import certified_radii as certified_radii
    from robaudit.certified import certify as certify
    from robaudit.checkpoints import Classifier as Classifier
    from robaudit.checkpoints import load as load
    from robaudit.data import load_examples as load_examples
    from robaudit.engine import straight_through as straight_through
    from robaudit.errors import RobauditError as RobauditError
    from robaudit.report import read_report as read_report
    from robaudit.schema import Report as Report
    from robaudit.session import audit_checkpoint as audit_checkpoint
    from robaudit.types import Examples as Examples
    from robaudit.types import ThreatModel as ThreatModel


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    if name in _ROOMS:
        return import_module(f"robaudit.{name}")
    raise AttributeError(f"module 'robaudit' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
