"""One job, done: a checkpoint and examples in, a report's folder out, resumable at any moment."""

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
from robaudit.audit.plan import preset
from robaudit.batch.directory import REPORT, STAGES, STATE, is_done, tidy
from robaudit.batch.jobs import Job
from robaudit.batch.lock import locked
from robaudit.batch.stages import stages
from robaudit.batch.tasks import Task, TaskEvent
from robaudit.checkpoints.answers import Answers
from robaudit.engine.raised import blame, is_foreign, is_memory
from robaudit.errors import RobauditError, UsageError
from robaudit.report import fill_folder, read_report, report_folder, write_report
from robaudit.report.gallery import Gallery, make_gallery, read_gallery, write_gallery
from robaudit.schema import Report
from robaudit.session import Session

_GALLERY = "gallery.npz"
_LOCK = "lock"


def session_of(job: Job, device: str) -> Session:
    """The job's examples, and how its checkpoint is opened and audited.

    Raises:
        UsageError, DataError: the examples cannot be had.
    """
    alike = job.changed(source="", member=None, sha256=None, trust_pickle=False)
    answers = _answers(alike, job.peers or (job.source,))
    own, at_most = job.changed(device=device), preset(job.preset).n
    return Session.begin([job.source], own, at_most=at_most, answers=answers)


@lru_cache(maxsize=16)
def _answers(alike: Job, sources: tuple[str, ...]) -> Answers:
    """What this worker has found out for the jobs that are alike but for their files."""
    return Answers(sources)


def attempted(task: Task, folder: Path, device: str) -> Iterator[TaskEvent]:
    """:func:`work`, whose every error is a reason: one model must not end the others' run.

    Gives each stage as it is finished, and the end. Runs with the task's threads.
    """
    clock = time.perf_counter()
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(task.threads or threads)
        for stage, seconds in work(task.job, folder, device):
            yield TaskEvent("stage", task.key, stage, seconds)
        reason = ""
    except RobauditError as error:
        reason = " ".join(filter(None, (error.message, error.advice)))
    except BaseException as error:
        if is_memory(error):
            reason = "out of memory; fewer examples (n) may fit"
        elif isinstance(error, GeneratorExit) or not is_foreign(error):
            raise
        else:
            reason = f"internal error: {blame(error)}"
    finally:
        torch.set_num_threads(threads)
    kind: Literal["failed", "done"] = "failed" if reason else "done"
    yield TaskEvent(kind, task.key, reason, time.perf_counter() - clock)


def work(job: Job, folder: Path, device: str) -> Iterator[tuple[str, float]]:
    """Audit by stages, each kept once it is finished, and write the report's folder last.

    Gives each stage and its seconds as it is finished.

    Args:
        folder: the job's own; what an earlier attempt finished there is not done again.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:i``.

    Raises:
        RobauditError: the checkpoint or the data cannot be audited, or the folder not be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    # A worker whose driver or node is gone may be at work here for some seconds more.
    with locked(folder / _LOCK, wait=True):
        yield from _work(job, folder, device)


def _work(job: Job, folder: Path, device: str) -> Iterator[tuple[str, float]]:
    for left in folder.glob(f".{REPORT}.*"):  # of an attempt that was killed while it wrote
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
    for name, plan in stages(preset(job.preset)):
        clock = time.perf_counter()
        if not (kept / f"{name}.json").is_file():
            done = session.audit(model, plan, job.source, cache=journal.piece)
            if done.adversarial is not None:
                _keep_gallery(kept, make_gallery(model, session.examples, done.adversarial))
            _keep(kept, name, done)
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
    """The stages' reports as the one that a single audit would have written."""
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


def _keep_gallery(kept: Path, gallery: Gallery) -> None:
    draft = kept / f"draft-{_GALLERY}"
    try:
        write_gallery(gallery, draft)
        draft.replace(kept / _GALLERY)
    except OSError as error:
        raise UsageError(f"cannot write to {kept}: {error.strerror or error}") from error


def _keep(kept: Path, name: str, done: Audit) -> None:
    packed = io.BytesIO()
    arrays: dict[str, Any] = {key: rows.numpy() for key, rows in done.outcomes.items()}
    np.savez(packed, **arrays)
    try:
        atomic_write(kept / f"{name}.npz", packed.getvalue())
        # The report is the sign that the stage is finished.
        write_report(done.report, kept / f"{name}.json")
    except OSError as error:
        raise UsageError(f"cannot write to {kept}: {error.strerror or error}") from error


def _journal(folder: Path) -> Journal:
    """The pieces of a job's attacks; the folder's name holds the hash of all they depend on."""
    key = {"robaudit": robaudit.__version__, "job": folder.parent.name}
    try:
        return open_journal(folder, key)
    except UsageError:  # of another robaudit, or damaged: it is this job's all the same
        shutil.rmtree(folder, ignore_errors=True)
        shutil.rmtree(folder.with_name(STAGES), ignore_errors=True)
        return open_journal(folder, key)
