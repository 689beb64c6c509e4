"""The folder of a run: its journal, and a folder for each job. Imports no torch.

``run.json`` holds the version that wrote it, ``journal.jsonl`` the events, ``jobs/NAME-KEY`` a
job's report. A job is done when its report is there: reports are written atomically.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import robaudit
from robaudit.atomic_write import atomic_write
from robaudit.batch import log
from robaudit.batch.jobs import Job
from robaudit.batch.lock import Holder, holder
from robaudit.errors import DataError, UsageError
from robaudit.report.folder import writing
from robaudit.report.jsonfile import FILE_NAME, read_report
from robaudit.report.text import model_name
from robaudit.schema import SCHEMA_VERSION, Measurement, Report

LAYOUT = 1
_RUN, _JOURNAL, _LOCK, _JOBS = "run.json", "journal.jsonl", "lock", "jobs"
# In a job's folder: its report; until that is there, finished parts of attacks and of the audit.
REPORT, STATE, STAGES = "report", "state", "stages"


@dataclass(frozen=True)
class ListedJob:
    """A job as the manifest lists it: one row of the run's tables.

    Attributes:
        key: the job's; made of what the manifest says where the checkpoint cannot be read.
        stages: the names of the job's stages.
        published: what RobustBench's leaderboards say of the network.
        reason: why the job cannot be done; ``""`` where it can.
        passes: of one example through the network, see :meth:`robaudit.audit.plan.Plan.passes`.
        run: the folder of the training run that it is of, where that is known.
        recorded: the hyper-parameters that the training run recorded.
    """

    job: Job
    key: str
    stages: tuple[str, ...] = ()
    published: Mapping[str, Any] = field(default_factory=dict)
    reason: str = ""
    passes: int = 0
    run: str | None = None
    recorded: Mapping[str, Any] = field(default_factory=dict)

    @property
    def known(self) -> tuple[object, ...]:
        """Everything that the journal holds of it; where this changes, it is listed again."""
        job = self.job
        return self.key, job.group, job.hyperparameters, self.run, dict(self.recorded)


@dataclass
class State:
    """What the journal says of every job, by the job's key.

    Attributes:
        rows: every job as it was last listed.
        folders: of the jobs.
        done: seconds that each finished job took.
        failed: the reason of the last attempt, where it failed.
        running: when a job was started that is neither finished nor failed, since the epoch.
        stages: the finished stages of a job.
        workers: how many tasks the last driver has in hand at once.
        threads: of the CPU, which the first driver fixed for every process of the run.
    """

    rows: list[ListedJob] = field(default_factory=list)
    folders: dict[str, Path] = field(default_factory=dict)
    done: dict[str, float] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    running: dict[str, float] = field(default_factory=dict)
    stages: dict[str, list[str]] = field(default_factory=dict)
    workers: int = 1
    threads: int | None = None

    def report(self, key: str) -> Report | None:
        """A finished job's report, without the tables in its details; ``None`` of another job.

        Raises:
            DataError: it cannot be read.
        """
        return _report(self.folders[key] / REPORT) if key in self.done else None


@dataclass(frozen=True)
class Directory:
    """The folder of a run that this version can read."""

    path: Path

    @property
    def lock(self) -> Path:
        """The lock of the run's driver."""
        return self.path / _LOCK

    @property
    def journal(self) -> Path:
        """The journal, see :mod:`robaudit.batch.log`."""
        return self.path / _JOURNAL

    def driver(self) -> Holder | None:
        """The process that drives the run now; ``None`` where there is none."""
        found = holder(self.lock)
        return found if found is not None and found.alive else None

    def folders(self, rows: Sequence[ListedJob]) -> dict[str, Path]:
        """The folder of each job, by the job's key; named after the first row with that key."""
        jobs = self.path / _JOBS
        there = {path.name.rpartition("-")[2]: path for path in jobs.iterdir()}

        def folder(row: ListedJob) -> Path:
            name = re.sub(r"[^A-Za-z0-9._-]+", "_", model_name(row.job.source))[:60].lstrip(".")
            key = row.key[:12]
            return there.get(key, jobs / f"{name}-{key}")

        return {row.key: folder(row) for row in reversed(rows)}

    def note(self, kind: str, **said: Any) -> None:
        """Append an event to the journal.

        Raises:
            UsageError: it cannot be written.
        """
        try:
            log.append(self.journal, kind, **said)
        except OSError as error:
            raise UsageError(
                f"cannot write to {self.journal}: {error.strerror or error}",
                "What was finished is kept: make room, and run the same command again.",
            ) from error

    def state(self) -> State:
        """Everything the journal says; a job whose report was removed is not done.

        Raises:
            DataError: the journal was not written by robaudit.
        """
        try:
            state = _state(log.events(self.journal))
        except (KeyError, TypeError) as error:
            raise DataError(f"{self.journal} cannot be read: {error}") from None
        state.folders = self.folders(state.rows)
        there = {key for key, folder in state.folders.items() if is_done(folder)}
        state.done = {key: seconds for key, seconds in state.done.items() if key in there}
        return state


def create(path: Path) -> Directory:
    """The run in this folder, which is made where there is none.

    Raises:
        UsageError: the folder holds other files, or cannot be written.
        DataError: the run was written by another version.
    """
    path = path.expanduser().absolute()
    with writing(path):
        path.mkdir(parents=True, exist_ok=True)
        if not (path / _RUN).exists():
            if any(not entry.name.startswith(".") for entry in path.iterdir()):
                raise UsageError(f"--out {path} holds other files", "Name a new folder.")
            said = {"layout": LAYOUT, "schema": SCHEMA_VERSION, "robaudit": robaudit.__version__}
            (path / _JOBS).mkdir(exist_ok=True)
            atomic_write(path / _RUN, f"{json.dumps(said)}\n".encode())
    return find(path)


def find(path: Path) -> Directory:
    """The run in this folder.

    Raises:
        UsageError: there is none.
        DataError: it was written by another version, or is damaged.
    """
    file = path / _RUN
    try:
        said = json.loads(file.read_bytes())
        versions = (said["layout"], said["schema"])
    except (FileNotFoundError, NotADirectoryError):
        raise UsageError(
            f"{path} is no batch run", "robaudit batch MANIFEST --out DIR makes one."
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{file} cannot be read: {error}") from None
    if versions != (LAYOUT, SCHEMA_VERSION):
        raise DataError(
            f"{path} was written by robaudit {said.get('robaudit')}: layout and report schema "
            f"{versions}, this one reads {(LAYOUT, SCHEMA_VERSION)}",
            "Go on with that version, or name a new folder.",
        )
    return Directory(path)


def is_done(folder: Path) -> bool:
    """Whether a job's report is there."""
    return (folder / REPORT / FILE_NAME).is_file()


def pieces_kept(folder: Path) -> int:
    """How many finished parts of an unfinished job its folder holds."""
    return sum(1 for name in (STATE, STAGES) for _ in (folder / name).glob("[!.]*"))


def tidy(folder: Path) -> None:
    """Remove what a finished job no longer needs."""
    for name in (STATE, STAGES):
        shutil.rmtree(folder / name, ignore_errors=True)


def _state(events: list[log.Event]) -> State:
    state = State()
    rows: dict[Job, ListedJob] = {}
    for event in events:
        key = event.get("key", "")
        match event["event"]:
            case "driver":
                state.workers = event["workers"]
                state.threads = state.threads or event.get("threads")
                state.running.clear()  # these ended with the driver before
            case "listed":
                # A file that has changed since is listed again, under its new key.
                job = Job.model_validate(event["job"], strict=False)
                rows[job.listed] = ListedJob(
                    job,
                    key,
                    tuple(event["stages"]),
                    event["published"],
                    run=event.get("run"),
                    recorded=event.get("recorded", {}),
                )
            case "started":
                state.running[key] = event["at"]
                state.failed.pop(key, None)
            case "stage":
                state.stages.setdefault(key, []).append(event["stage"])
            case "done":
                state.running.pop(key, None)
                state.failed.pop(key, None)
                state.done[key] = event["seconds"]
            case "failed":
                state.running.pop(key, None)
                state.failed[key] = event["reason"]
    state.rows = list(rows.values())
    return state


@cache
def _report(folder: Path) -> Report:
    found = read_report(folder)

    def short(measurement: Measurement) -> Measurement:
        details = measurement.details.items()
        kept = {name: said for name, said in details if not isinstance(said, list | dict)}
        return measurement.model_copy(update={"details": kept})

    return found.model_copy(update={"measurements": list(map(short, found.measurements))})
