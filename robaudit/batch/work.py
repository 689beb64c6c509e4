"""Doing one job: opens the checkpoint, audits it and writes the report; a kill loses little."""

from __future__ import annotations

import io
import shutil
import time
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

import robaudit
from robaudit.atomic_write import atomic_write
from robaudit.audit import Audit
from robaudit.audit.journal import Journal, open_journal
from robaudit.batch.directory import REPORT, STAGES, STATE, is_done, tidy
from robaudit.batch.jobs import Job
from robaudit.batch.lock import locked
from robaudit.batch.tasks import Task, TaskEvent
from robaudit.checkpoints.answers import Answers
from robaudit.engine.raised import is_memory
from robaudit.errors import UsageError
from robaudit.report import fill_folder, read_report, report_folder, write_report
from robaudit.report.gallery import Gallery, make_gallery, read_gallery, write_gallery
from robaudit.schema import Report
from robaudit.session import Session
from robaudit.session.refusals import refusal_of

_GALLERY = "gallery.npz"
_LOCK = "lock"


def session_of(job: Job, device: str) -> Session:
    """The job's examples, and how its checkpoint is opened and audited.

    Raises:
        UsageError, DataError: the examples cannot be had.
    """
    alike = job.changed(source="", member=None, sha256=None, trust_pickle=False)
    answers = _answers(alike, job.peers or (job.source,))
    own, plan = job.changed(device=device), job.plan
    return Session.begin(
        [job.source],
        own,
        at_most=plan.n,
        clean_alone=not plan.attacks,
        corrupted=plan.on_corrupted,
        answers=answers,
    )


@lru_cache(maxsize=16)
def _answers(alike: Job, sources: tuple[str, ...]) -> Answers:
    """What this worker has found out about the checkpoints of jobs that differ in nothing else."""
    return Answers(sources)


def attempted(task: Task, folder: Path, device: str) -> Iterator[TaskEvent]:
    """:func:`work` with the task's threads; its errors become the reason of a failure.

    Yields an event for each finished stage, and one for the end.
    """
    clock = time.perf_counter()
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(task.threads or threads)
        for stage, seconds in work(task.job, folder, device):
            yield TaskEvent("stage", task.key, stage, seconds)
        reason = ""
    except GeneratorExit:
        raise
    except BaseException as error:
        refused = refusal_of(error)
        if refused is None:
            raise
        reason = " ".join(filter(None, (refused.message, refused.advice)))
        if is_memory(error):
            reason = "out of memory; fewer examples (n) may fit"
    finally:
        torch.set_num_threads(threads)
    kind: Literal["failed", "done"] = "failed" if reason else "done"
    yield TaskEvent(kind, task.key, reason, time.perf_counter() - clock)


def work(job: Job, folder: Path, device: str) -> Iterator[tuple[str, float]]:
    """Audit stage by stage, and write the report; finished stages are kept until then.

    Yields the name and the seconds of each stage when it is finished.

    Args:
        folder: of the job; the stages that an earlier attempt finished there are not repeated.
        device: one or several, see :func:`robaudit.engine.resolve_devices`.

    Raises:
        RobauditError: the checkpoint cannot be audited, or the folder not be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    # The worker of a driver that has ended may still run for some seconds.
    with locked(folder / _LOCK, wait=True):
        yield from _work(job, folder, device)


def _work(job: Job, folder: Path, device: str) -> Iterator[tuple[str, float]]:
    for left in folder.glob(f".{REPORT}.*"):  # of a killed attempt
        shutil.rmtree(left, ignore_errors=True)
    if is_done(folder):
        return
    session = session_of(job, device)
    model = session.open(job.source)
    journal = _journal(folder / STATE)
    kept = folder / STAGES
    kept.mkdir(exist_ok=True)
    parts: list[Report] = []
    outcomes: dict[str, Any] = {}
    for name, plan in job.plan.stages():
        clock = time.perf_counter()
        if not (kept / f"{name}.json").is_file():
            done = session.audit(model, plan, job.source, cache=journal.piece)
            found = done.adversarial
            gallery = None if found is None else make_gallery(model, session.examples, found)
            _keep(kept, name, done, gallery)
            yield name, time.perf_counter() - clock
        parts.append(read_report(kept / f"{name}.json"))
        with np.load(kept / f"{name}.npz") as arrays:
            outcomes |= dict(arrays)
    with report_folder(folder / REPORT) as target:
        there = (kept / _GALLERY).is_file()
        gallery = read_gallery(kept / _GALLERY) if there else None
        fill_folder(target, merged(parts), outcomes, gallery)
    tidy(folder)


def merged(parts: list[Report]) -> Report:
    """The report that a single audit would have given, from those of its stages."""
    first, *others = parts
    measurements = list(first.measurements)
    for part in others:
        measurements += [m for m in part.measurements if m.name not in _EVERY_STAGE]
    provenance = first.provenance.model_copy(
        update={"seconds": sum(part.provenance.seconds for part in parts)}
    )
    warnings = list(dict.fromkeys(text for part in parts for text in part.warnings))
    return first.model_copy(
        update={"measurements": measurements, "warnings": warnings, "provenance": provenance}
    )


_EVERY_STAGE = ("accuracy.clean", "loss.clean")


def _keep(kept: Path, name: str, done: Audit, gallery: Gallery | None) -> None:
    """Keep a finished stage."""
    packed = io.BytesIO()
    arrays: dict[str, Any] = {key: rows.numpy() for key, rows in done.outcomes.items()}
    np.savez(packed, **arrays)
    try:
        if gallery is not None:
            draft = kept / f"draft-{_GALLERY}"
            write_gallery(gallery, draft)
            draft.replace(kept / _GALLERY)
        atomic_write(kept / f"{name}.npz", packed.getvalue())
        # Last, since a stage is finished when its report is there.
        write_report(done.report, kept / f"{name}.json")
    except OSError as error:
        raise UsageError(f"cannot write to {kept}: {error.strerror or error}") from error


def _journal(folder: Path) -> Journal:
    """The finished pieces of a job's attacks; the folder's name has the hash of their settings."""
    key = {"robaudit": robaudit.__version__, "job": folder.parent.name}
    try:
        return open_journal(folder, key)
    except UsageError:  # of another version of robaudit, or damaged
        shutil.rmtree(folder, ignore_errors=True)
        shutil.rmtree(folder.with_name(STAGES), ignore_errors=True)
        return open_journal(folder, key)
