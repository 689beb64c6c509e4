"""``robaudit batch``: many checkpoints in one run, and what can be read from it."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from pydantic import Field
from typer.core import TyperGroup

from robaudit.cli.batch_look import looking, reading
from robaudit.cli.batch_tables import Directories, leaderboard, study
from robaudit.cli.messages import say, show_tables
from robaudit.cli.on_result import teller
from robaudit.cli.options import Settings, with_settings
from robaudit.errors import UsageError
from robaudit.request import PlanSpec, ThreatSpec

if TYPE_CHECKING:
    from robaudit.batch.directory import Directory, ListedJob
    from robaudit.batch.manifest import Manifest
    from robaudit.batch.tasks import Executor, TaskEvent

_INTERRUPTED = 130
_DEFAULT = "run"


class RunByDefault(TyperGroup):
    """``batch MANIFEST`` is ``batch run MANIFEST``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        known = {*self.commands, "--help", "-h"}
        if args and args[0] not in known:
            args = [_DEFAULT, *args]
        parsed: list[str] = super().parse_args(ctx, args)
        return parsed


class BatchOptions(PlanSpec):
    """What is measured, and how the jobs are done."""

    workers: Annotated[int, Field(ge=0)] | None = Field(
        default=None,
        description="Worker processes; 0 works in this one. GPUs without a worker or a model share "
        "in the others' models. [default: one a GPU, else one]",
    )
    timeout: Annotated[float, Field(ge=0.001)] | None = Field(
        default=None, description="A job that takes longer has failed, and its worker is killed."
    )
    engine: Literal["local", "ray"] = Field(
        default="local", description="local: processes on this machine. ray: a Ray cluster."
    )
    address: str | None = Field(
        default=None, description="With ray: a cluster that runs; else one is started."
    )
    retry: Literal["failed"] | None = Field(
        default=None, description="Do again the jobs that failed in an earlier run."
    )
    dry_run: bool = Field(
        default=False, description="Show the jobs and how many passes they take, and stop."
    )


@with_settings(
    omit=frozenset(
        ["batch_size", "state", "config", "out", "format", "json", "samples", "straight_through"]
    ),
    gap=True,
    data="digits",
)
def run(
    ctx: typer.Context,
    what: Annotated[
        list[str],
        typer.Argument(
            metavar="MANIFEST|CKPT...",
            show_default=False,
            help="A manifest, FILE.toml; or checkpoints, globs, and names in zoos such as "
            "'robustbench:cifar10/Linf/*'.",
        ),
    ],
    settings: Settings,
    out: Annotated[
        Path,
        typer.Option(
            metavar="DIR", show_default=False, help="The run's folder, new or begun before."
        ),
    ],
    how: Annotated[BatchOptions, None],
    shards: Annotated[int | None, typer.Option(hidden=True, help="Removed.")] = None,
) -> None:
    """Audit many checkpoints in one run that can be resumed at any moment.

    [bold]robaudit batch models.toml --out runs/zoo --workers 2[/bold]

    A model that fails is a row with the reason; the others continue, and the exit code is 3. The
    same command resumes a run that was interrupted and repeats nothing; models that were added to
    the manifest are added to the run. robaudit batch status shows a run from another terminal.
    """
    from robaudit.batch.directory import create, find
    from robaudit.batch.listing import jobs_of, rows_of
    from robaudit.batch.view import dry_run_table

    if shards is not None:
        raise UsageError(
            "--shards no longer exists: each model is audited by one worker",
            "Leave it out. --workers N audits N models at a time.",
        )
    jobs = jobs_of(_manifest(ctx, what, how.only(PlanSpec), settings))
    with reading(settings.quiet) as notice:
        rows = rows_of(jobs, notice)
    if how.dry_run:
        done = find(out).state().done if (out / "run.json").exists() else ()
        show_tables(dry_run_table(rows, done))
        return
    tell = teller(settings.on_result, out)
    directory = create(out)
    who = _executor(how, settings.device)
    _driven(directory, rows, who, how.retry is not None, settings.quiet, tell)


def status(directory: Directories) -> None:
    """Show the progress of a run, also while it is running.

    [bold]robaudit batch status runs/zoo[/bold]
    """
    from robaudit.batch.directory import find
    from robaudit.batch.view import run_table

    found = find(directory)
    show_tables(run_table(found.state(), found.driver(), time.time()))


def _manifest(
    ctx: typer.Context, what: list[str], plan: dict[str, Any], settings: Settings
) -> Manifest:
    from robaudit.batch.manifest import Choices, manifest_of, read_manifest

    said = settings.only(Choices) | plan
    if not any(word.lower().endswith(".toml") for word in what):
        threat = settings.only(ThreatSpec)
        return manifest_of(what, threats=[threat], **said)
    if len(what) > 1:
        raise UsageError(
            "a manifest stands alone, but several names were given",
            "Name the checkpoints in it, in a table [[models]].",
        )
    given = [name for name in (*said, *ThreatSpec.model_fields) if _given(ctx, name)]
    if given:
        options = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        raise UsageError(
            f"{options}: the manifest {what[0]} says what is measured",
            "Write it into the manifest; the command line says only how it is run.",
        )
    return read_manifest(Path(what[0]))


def _given(ctx: typer.Context, name: str) -> bool:
    source: Any = ctx.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _executor(how: BatchOptions, device: str) -> tuple[Executor, int, int]:
    """The executor, how many tasks it does at the same time, and the threads of each."""
    if how.engine == "ray":
        from robaudit.batch.on_ray import on_ray

        return on_ray(how.address, how.workers, device, how.timeout)
    if how.address is not None:
        raise UsageError("--address is for --engine ray")
    from robaudit.batch.local import in_process, local, places, threads_each

    if how.workers == 0:
        if how.timeout is not None:
            raise UsageError("--timeout needs a worker that can be killed", "Give --workers 1.")
        return in_process(device), 1, threads_each(1)
    where = places(how.workers, device)
    return local(where, how.timeout), len(where), threads_each(len(where))


def _driven(
    directory: Directory,
    rows: list[ListedJob],
    who: tuple[Executor, int, int],
    retry: bool,
    quiet: bool,
    tell: Callable[[Path], None],
) -> None:
    """Drive the run, show its progress, and say how it ended."""
    from robaudit.batch.directory import REPORT
    from robaudit.batch.driving import drive
    from robaudit.batch.view import run_table

    def look_and_tell(event: TaskEvent | None) -> None:
        look(event)
        if event is not None and event.kind == "done":
            tell(directory.state().folders[event.key] / REPORT)

    executor, workers, threads = who
    try:
        with looking(directory, quiet) as look:
            outcome = drive(
                directory,
                rows,
                executor,
                workers=workers,
                threads=threads,
                retry_failed=retry,
                look=look_and_tell,
            )
    except KeyboardInterrupt:
        say("interrupted; what was finished is kept", "The same command resumes the run.")
        raise typer.Exit(_INTERRUPTED) from None
    if outcome.held_back and not quiet:
        say(f"{outcome.held_back} failed before and were left", "--retry failed tries them again.")
    show_tables(run_table(outcome.state, None, time.time()))
    if not outcome.complete:
        raise typer.Exit(3)


HELP = """
Audit many checkpoints in one run, and read what it found.

[bold]robaudit batch MANIFEST --out DIR[/bold] is short for robaudit batch run.
"""
COMMANDS: dict[str, Callable[..., None]] = {
    _DEFAULT: run,
    "status": status,
    "leaderboard": leaderboard,
    "study": study,
}
