"""``robaudit gate --write-baseline`` and ``--baseline``: what ``max_drop`` compares with."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from robaudit.cli.display import Screen
from robaudit.cli.gate_suites import policy_in, population, session_of
from robaudit.cli.messages import say
from robaudit.cli.options import Settings
from robaudit.errors import NotMeasuredError, UsageError

if TYPE_CHECKING:
    from robaudit.gate.baseline import Baseline


def baselines_in(path: Path) -> list[Baseline]:
    """The reports that ``--baseline`` names: one, or one for each suite in a folder."""
    from robaudit.gate.baseline import Baseline
    from robaudit.outcomes import read_outcomes
    from robaudit.report import read_report
    from robaudit.report.folder import reports_in

    return [Baseline(str(one), read_report(one), read_outcomes(one)) for one in reports_in(path)]


def write_baseline(checkpoints: list[str], policy: Path, out: Path, settings: Settings) -> None:
    """Audit the checkpoint by the attacks that the policy's ``max_drop`` rules go through.

    Raises:
        UsageError: several checkpoints, or a policy without such a rule.
        NotMeasuredError: an attack failed; the report says which.
    """
    from robaudit.gate.baseline_made import baselines_made, folder_of
    from robaudit.report import fill_folder, report_folder
    from robaudit.session.many import arrays

    if len(checkpoints) > 1:
        raise UsageError(
            "write_baseline is of one checkpoint, but there are several", field="write_baseline"
        )
    rules, refusal = policy_in(policy)
    if refusal is not None:
        raise refusal
    assert rules is not None
    populations = [population(suite, rules, settings) for suite in rules.suites]
    failed: list[str] = []
    with report_folder(out) as folder:
        session = session_of(checkpoints, rules, populations, settings)
        model = session.open(checkpoints[0])
        with Screen(settings.quiet).bars(Path(checkpoints[0]).stem) as watch:
            made = baselines_made(
                model,
                rules,
                populations,
                batch_size=settings.batch_size,
                precision=settings.precision,
                samples=settings.samples,
                straight_through=settings.straight_through,
                watch=watch,
            )
            for suite, done in made:
                fill_folder(folder_of(folder, suite, rules), done.report, arrays(done))
                failed += [f"{m.name}: {m.reason}" for m in done.report.failed]
    if not settings.quiet:
        say(f"the baseline is in {out}", f"robaudit gate CKPT --policy {policy} --baseline {out}")
    if failed:
        raise NotMeasuredError(f"the baseline lacks {failed[0]}")
