"""A plan of probes -> a report. Adversarial examples that several probes need are made once."""

from robaudit.audit.plan import Plan, preset
from robaudit.audit.run import Audit, audit, run_audit

__all__ = ["Audit", "Plan", "Watch", "audit", "preset", "run_audit"]
