"""The report that a policy's ``max_drop`` rules compare with, made on the policy's own terms."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from robaudit.audit import Audit, Plan, audit
from robaudit.audit.plan import planned
from robaudit.audit.probes import named
from robaudit.errors import UsageError
from robaudit.gate.policy import Policy, SuitePolicy
from robaudit.gate.run import Population
from robaudit.measures import find


def baselines_made(
    model: nn.Module, policy: Policy, populations: Sequence[Population], **how: Any
) -> Iterator[tuple[SuitePolicy, Audit]]:
    """An audit for each suite that has a ``max_drop``, by the attacks that a gate compares with.

    Args:
        how: as for :func:`robaudit.audit.audit`: ``batch_size``, ``precision``, ``samples``,
            ``straight_through``, ``watch``.

    Raises:
        UsageError: no rule of the policy needs a baseline.
    """
    wanted = [(at, plan) for at in populations if (plan := _plan(at.suite)) is not None]
    if not wanted:
        raise UsageError(
            f"{policy.path} has no max_drop, so that no baseline is needed",
            'Add one: [gate.metrics."accuracy.autoattack"] with max_drop = 0.02.',
        )
    for at, plan in wanted:
        seed, where = at.suite.seed, at.data_dir
        yield at.suite, audit(model, at.examples, at.threat, plan, seed=seed, data_dir=where, **how)


def folder_of(out: Path, suite: SuitePolicy, policy: Policy) -> Path:
    """The report's folder: ``out``, or one for each suite below it where there are several."""
    return out if len(policy.suites) == 1 else out / suite.name


def _plan(suite: SuitePolicy) -> Plan | None:
    """All attacks that the suite's ``max_drop`` rules go through; ``None`` without such a rule."""
    chains = [find(rule.metric).stages for rule in suite.rules if rule.kind == "max_drop"]
    if not chains:
        return None
    usual = planned(suite.preset, union=suite.union)
    names = dict.fromkeys(name for chain in chains for name in chain if name != "clean")
    probes = [named(name).fitting(usual) for name in names]
    return Plan(probes=tuple(probe for probe in probes if probe is not None))
