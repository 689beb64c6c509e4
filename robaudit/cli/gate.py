"""``robaudit gate``: a policy, a verdict, an exit code."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from pydantic import Field

from robaudit.cli.gate_baseline import baselines_in, write_baseline
from robaudit.cli.gate_suites import policy_in, population, session_of
from robaudit.cli.messages import say, say_of, show_tables
from robaudit.cli.options import (
    FLOAT64_IS_OF_CURVATURE,
    OUT_PANEL,
    Settings,
    checkpoints_named,
    with_settings,
)
from robaudit.display import Whole
from robaudit.errors import OpenQuestionError, RobauditError, UsageError, error_line
from robaudit.request import DataSpec, Folder, Spec, ThreatSpec

if TYPE_CHECKING:
    from robaudit.gate.policy import Policy
    from robaudit.schema import Verdict

_IN_POLICY = frozenset(
    {*DataSpec.model_fields, *ThreatSpec.model_fields} - {"data_dir", "download", "force_eps"}
    | {"seed", "state", "format", "out", "on_result"}
)


class PolicyOptions(Spec):
    """What decides."""

    policy: Folder = Field(default=Path("robaudit.toml"), description="TOML file of thresholds.")
    baseline: tuple[Path, ...] = Field(
        default=(),
        description="Report that max_drop compares with, on the same examples; several for "
        "several suites, or a folder that holds them.",
    )
    write_baseline: Folder | None = Field(
        default=None,
        description="Audit the checkpoint by the attacks that max_drop needs, write the report "
        "here for --baseline, and decide nothing.",
    )
    exhaustive: bool = Field(
        default=False,
        description="Look at every example instead of stopping once a rule is decided.",
    )
    init: Folder | None = Field(
        default=None,
        description="Print a first policy, made from this report, and do nothing else.",
    )


class VerdictFiles(Spec):
    """Where verdicts are written."""

    junit: Folder | None = Field(default=None, description="Write the verdicts as JUnit XML.")
    sarif: Folder | None = Field(default=None, description="Write the verdicts as SARIF.")
    summary: Folder | None = Field(
        default=None,
        description="Append the verdicts as markdown. [default: $GITHUB_STEP_SUMMARY]",
    )
    out: Folder | None = Field(
        default=None,
        description="Write verdicts.json, verdicts.md and a page for each checkpoint here.",
    )


@with_settings(omit=_IN_POLICY)
def gate(
    settings: Settings,
    *,
    checkpoints: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="CKPT...",
            show_default=False,
            callback=checkpoints_named,
            help="Checkpoints, as for robaudit audit.",
        ),
    ] = None,
    by: Annotated[PolicyOptions, "Policy"],
    written: Annotated[VerdictFiles, OUT_PANEL],
) -> None:
    """Decide whether checkpoints meet a policy of thresholds, with a known error rate.

    [bold]robaudit gate ckpt.pt --policy robaudit.toml[/bold]

    Accuracies are decided example by example, in random order, cheap attacks first, and no longer
    than needed. Exits with 0 when the gate passed, 1 when it failed, 3 when a rule could not be
    decided: what was not measured never passes. A first policy: robaudit gate --init REPORT.
    """
    if by.init is not None:
        from robaudit.gate.initial import initial_policy
        from robaudit.report import read_report

        sys.stdout.write(initial_policy(read_report(by.init)))
        return
    if not checkpoints:
        raise UsageError("no checkpoint to gate", "robaudit gate CKPT... --policy FILE")
    if by.write_baseline is not None:
        write_baseline(checkpoints, by.policy, by.write_baseline, settings)
        return
    from robaudit.cli.gate_files import GateFiles
    from robaudit.gate.unfinished import unfinished

    step = os.environ.get("GITHUB_STEP_SUMMARY")
    summary = written.summary or (Path(step) if step else None)
    files = GateFiles(written.junit, written.sarif, summary, written.out)
    found: list[Verdict] = []
    rules: Policy | None = None
    try:
        rules, refusal = policy_in(by.policy)
        files.begin([unfinished(one, rules, by.policy, _DIED) for one in checkpoints])
        if refusal is not None:
            raise refusal
        assert rules is not None
        code = _verdicts(checkpoints, rules, by, settings, found)
    except BaseException as error:
        rest = checkpoints[len(found) :]
        left = [unfinished(one, rules, by.policy, _why(error)) for one in rest]
        for problem in files.end([*found, *left]):
            if problem not in str(error):
                say(problem)
        raise
    # The files first: whatever becomes of the screen, the verdict is there.
    refused = files.end(found)
    _show(found, len(checkpoints) > 1, settings)
    for problem in refused:
        say(problem, "Name another file, or make room.")
    outcomes = {verdict.outcome for verdict in found}
    code = 1 if "fail" in outcomes else code or (3 if "inconclusive" in outcomes else 0)
    code = code or (UsageError.exit_code if refused else 0)
    if code:
        raise typer.Exit(code)


_DIED = "the gate did not finish: its process ended while it was at work"


def _why(error: BaseException) -> str:
    if isinstance(error, RobauditError):
        return " ".join(filter(None, (error.message, error.advice)))
    if isinstance(error, KeyboardInterrupt):
        return "the gate was interrupted"
    return f"internal error: {error_line(error)}"


def _verdicts(
    checkpoints: list[str],
    policy: Policy,
    by: PolicyOptions,
    settings: Settings,
    found: list[Verdict],
) -> int:
    """Add each verdict to ``found``; the code of the first checkpoint that could not be gated."""
    from robaudit.gate.run import gate as run
    from robaudit.gate.run import not_gated
    from robaudit.session.refusals import refusal_of

    if settings.precision == "float64":
        raise UsageError(*FLOAT64_IS_OF_CURVATURE)
    read = [one for path in by.baseline for one in baselines_in(path)]
    populations = [population(suite, policy, settings) for suite in policy.suites]
    code = 0
    whole = Whole(len(checkpoints))
    session = session_of(checkpoints, policy, populations, settings)
    for checkpoint in checkpoints:
        try:
            whole.begin()
            model = session.open(checkpoint, whole=whole)
            with session.display.bars(Path(checkpoint).stem, whole) as watch:
                found.append(
                    run(
                        model,
                        policy,
                        populations,
                        baselines=read,
                        exhaustive=by.exhaustive,
                        batch_size=settings.batch_size,
                        precision=settings.precision,
                        watch=watch,
                        progress=whole.progress,
                        samples=settings.samples,
                        straight_through=settings.straight_through,
                    )
                )
        except BaseException as error:
            refusal = refusal_of(error)
            unknown = isinstance(error, OpenQuestionError)
            if refusal is None or (len(checkpoints) == 1 and not unknown):
                raise
            say_of(checkpoint, refusal)
            # What it is was not decided, so that its rules are not either: they are inconclusive.
            code = code or (0 if unknown else refusal.exit_code)
            reason = f"{refusal.message}. {refusal.advice}" if unknown else refusal.message
            found.append(not_gated(checkpoint, policy, populations, reason))
    return code


def _show(verdicts: list[Verdict], several: bool, settings: Settings) -> None:
    from robaudit.cli.gate_files import verdicts_json
    from robaudit.report.gate_tables import gate_tables

    if settings.format == "json":
        sys.stdout.write(verdicts_json(verdicts, several))
        return
    for verdict in verdicts:
        show_tables(*gate_tables(verdict))
