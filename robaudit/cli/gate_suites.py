"""What a gate reads before it decides: the policy, its suites' examples, checkpoints, baselines."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from robaudit.cli.display import Screen
from robaudit.cli.options import Settings
from robaudit.errors import DataError, RobauditError, UsageError
from robaudit.measures import find
from robaudit.request import CheckpointSpec, Request

if TYPE_CHECKING:
    from robaudit.gate.policy import Policy, SuitePolicy
    from robaudit.gate.run import Population
    from robaudit.session import Session


def policy_in(policy: Path) -> tuple[Policy | None, RobauditError | None]:
    """The policy, or why there is none."""
    from robaudit.gate.policy import read_policy

    if not policy.exists():
        first = f"A first one from a report: robaudit gate --init REPORT > {policy}"
        return None, UsageError(f"there is no policy {policy}", first)
    try:
        return read_policy(policy), None
    except RobauditError as error:
        return None, error


def session_of(
    checkpoints: list[str], policy: Policy, populations: list[Population], settings: Settings
) -> Session:
    """Opens checkpoints as the command line, else the policy says, for the first suite."""
    from robaudit.checkpoints.answers import Answers
    from robaudit.session import Session

    at, known, screen = populations[0], Answers(checkpoints), Screen(settings.quiet)
    opened = {**policy.checkpoint.stated(CheckpointSpec), **settings.stated(CheckpointSpec)}
    own = _asked(at.suite, settings).changed(**opened)
    return Session(own, at.examples, None, at.threat, known, display=screen)


def population(suite: SuitePolicy, policy: Policy, settings: Settings) -> Population:
    """The examples that a suite's rules are about.

    Raises:
        UsageError, DataError: they cannot be had; with the policy's line.
    """
    from robaudit.gate.run import Population
    from robaudit.session import data_splits, threat_of

    own = _asked(suite, settings)
    try:
        threat = threat_of(own, advice='Say it in the policy: eps = "8/255".')
        examples, train = data_splits(own, None, Screen(settings.quiet))
    except (UsageError, DataError) as error:
        where = policy.path if suite.line is None else f"{policy.path}:{suite.line}"
        raise type(error)(f"{where}: {error.message}", error.advice) from None
    return Population(suite, examples, threat, train, own.data_dir)


def _asked(suite: SuitePolicy, settings: Settings) -> Settings:
    """The request of a suite, as far as the command line does not say otherwise."""
    gap = any(find(rule.metric).split for rule in suite.rules)  # of the training split, too
    return settings.changed(**{**suite.stated(Request), **settings.stated(Request), "gap": gap})
