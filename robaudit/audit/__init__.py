"""A plan of probes -> a report. Adversarial examples that several probes need are made once.

Its names are loaded on first use, so that the registry of measures can read the probes without
importing torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

_HOME = {
    "Audit": "robaudit.audit.run",
    "Plan": "robaudit.audit.plan",
    "audit": "robaudit.audit.run",
    "preset": "robaudit.audit.plan",
    "run_audit": "robaudit.audit.run",
}

__all__ = ["Audit", "Plan", "audit", "preset", "run_audit"]

if TYPE_CHECKING:
    from robaudit.audit.plan import Plan as Plan
    from robaudit.audit.plan import preset as preset
    from robaudit.audit.run import Audit as Audit
    from robaudit.audit.run import audit as audit
    from robaudit.audit.run import run_audit as run_audit


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'robaudit.audit' has no attribute {name!r}")
