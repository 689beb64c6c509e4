"""From a request to reports: what the command line, batch, gate and notebooks have in common.

A :class:`Session` has the examples and the threat model of a :class:`robaudit.request.Request`
and opens checkpoints; :func:`audit_all` audits them by a plan and writes the report folder, and
:func:`audit_checkpoint` does all of it for one checkpoint. Nothing here prints: what there is to
say goes to a :class:`robaudit.display.Display`.
"""

from robaudit.session.many import Outcome, audit_all, audit_checkpoint
from robaudit.session.session import Session, data_splits, threat_of

__all__ = [
    "Outcome",
    "Session",
    "audit_all",
    "audit_checkpoint",
    "data_splits",
    "threat_of",
]
