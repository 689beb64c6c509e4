"""The verdict on a checkpoint that was not gated, for CI to find. Imports no torch."""

from __future__ import annotations

import platform
import sys
from datetime import UTC, datetime
from pathlib import Path

import robaudit
from robaudit.gate.decisions import undecided
from robaudit.gate.policy import Policy
from robaudit.schema import Decision, Provenance, Subject, Verdict

# The one rule of a policy that could not be read.
RAN = "gate.ran"


def not_opened(source: str) -> Subject:
    """What a verdict says of a checkpoint that was not opened."""
    return Subject(
        source=source,
        sha256=None,
        format="not opened",
        architecture="unknown",
        identified_by="nothing",
        normalization="unknown",
        parameters=0,
    )


def unfinished(source: str, policy: Policy | None, path: Path, reason: str) -> Verdict:
    """Every rule of the policy inconclusive for that reason; without a policy one rule stands in.

    Args:
        path: where the policy is, or should have been.
    """
    rules = [] if policy is None else [(at.name, rule) for at in policy.suites for rule in at.rules]
    decisions = [undecided(rule, suite, "Not decided.", reason) for suite, rule in rules]
    # A rule that only warns would let the verdict pass.
    if not any(decision.severity == "error" for decision in decisions):
        ran = Decision(
            metric=RAN,
            suite="default",
            rule="min",
            threshold=1,
            outcome="inconclusive",
            sentence="The gate did not run.",
            alpha=0.05,
            reason=reason,
        )
        decisions.append(ran)
    return Verdict(
        robaudit=robaudit.__version__,
        subject=not_opened(source),
        policy=str(path),
        policy_sha256="not read" if policy is None else policy.sha256,
        suites=[],
        decisions=decisions,
        provenance=Provenance(
            argv=list(sys.argv),
            seed=0,
            started=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            seconds=0.0,
            versions={"python": platform.python_version(), "robaudit": robaudit.__version__},
            device="none",
            precision="none",
            batch_size=None,
        ),
    )
