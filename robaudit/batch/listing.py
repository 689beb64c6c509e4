"""From a manifest to its jobs: one for each model, data set and threat model."""

from __future__ import annotations

import fnmatch
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from robaudit.audit.probes import Corruptions
from robaudit.batch.directory import ListedJob
from robaudit.batch.jobs import Job, key_of
from robaudit.batch.manifest import Manifest, Models
from robaudit.checkpoints.files.container import read_container
from robaudit.checkpoints.files.display import shown
from robaudit.checkpoints.files.hashing import joint_digest
from robaudit.checkpoints.files.matching import matching
from robaudit.checkpoints.pooling import few
from robaudit.checkpoints.sidecar import statement_of
from robaudit.checkpoints.sources import files_of, is_source, ranked_by_corruptions
from robaudit.checkpoints.sources.catalogue import catalogue, find_entry
from robaudit.checkpoints.sources.published import published
from robaudit.errors import CheckpointError, RobauditError, UsageError, did_you_mean
from robaudit.request import PlanSpec, Request, ThreatSpec
from robaudit.session import data_splits, threat_of
from robaudit.training.origins import hyperparameters, run_of


def jobs_of(manifest: Manifest) -> list[Job]:
    """Every model on every data set within every threat model, in the manifest's order.

    Raises:
        UsageError: a file or a zoo's name does not exist, or a threat model is not valid.
    """
    found: list[Job] = []
    sources = [_sources(group) for group in manifest.models]
    together: dict[tuple[object, ...], list[str]] = {}
    for group, own in zip(manifest.models, sources, strict=True):
        together.setdefault(_said_of(group), []).extend(s for s in own if not is_source(s))
    peers = {said: few(list(dict.fromkeys(all_))) for said, all_ in together.items()}
    for group, own in zip(manifest.models, sources, strict=True):
        found += [
            _job(group, source, data, threat, peers[_said_of(group)])
            for source in own
            for data in group.data
            for threat in group.threats
        ]
    return list(dict.fromkeys(found))


def rows_of(jobs: list[Job], notice: Callable[[str], None] = lambda _: None) -> list[ListedJob]:
    """The jobs with their keys: reads the data and hashes every checkpoint.

    Args:
        notice: called with what is being read.

    Raises:
        UsageError, DataError: examples that cannot be loaded.
    """
    parts: dict[tuple[object, ...], tuple[list[str], tuple[int, int]]] = {}
    hashes: dict[Job, str | RobauditError] = {}
    rows: list[ListedJob] = []
    for job in jobs:
        if job.examples not in parts:
            notice(f"reading {job.data}")
            plan = job.plan
            found, train = data_splits(job, plan.n, corrupted=plan.on_corrupted)
            if (corruptions := plan.get(Corruptions)) is not None:
                corruptions.opened(found, job.data_dir)
            hashed = [part.sha256 for part in (found, train) if part is not None]
            parts[job.examples] = hashed, (len(found), 0 if train is None else len(train))
        examples, counts = parts[job.examples]
        read = job.changed(data="", norm="linf", eps=1.0)
        if read not in hashes:
            notice(f"hashing {job.source}")
            try:
                hashes[read] = weights_hash(job)
            except RobauditError as error:
                hashes[read] = error
        weights = hashes[read]
        reason = ""
        if isinstance(weights, RobauditError):
            reason = " ".join(filter(None, (weights.message, weights.advice)))
            weights = f"unread {job.source}"
        plan = job.plan
        key = key_of(job, weights, examples, asdict(plan))
        names = tuple(name for name, _ in plan.stages())
        rows.append(
            ListedJob(
                job,
                key,
                names,
                _published(job.source),
                reason,
                plan.passes(*counts),
                *_origin(job.source),
            )
        )
    return rows


def weights_hash(job: Job) -> str:
    """Hash of what decides which network is loaded: the files, their sidecars, the user's code.

    Raises:
        UsageError, CheckpointError: the checkpoint does not exist or cannot be read.
    """
    if is_source(job.source):
        files = _files_of_zoo(job)
        hashes = [(str(read_container(file, hash=True).sha256), file.name) for file in files]
        parts = [joint_digest(hashes), job.source]
    else:
        container = read_container(Path(job.source), hash=True)
        said = statement_of(container)
        parts = [str(container.sha256)]
        parts += [repr((said.architecture, said.normalization, said.kwargs))] if said else []
    if job.arch is not None and ".py:" in job.arch:
        code = Path(job.arch.rpartition(":")[0])
        parts.append(code.read_text(encoding="utf-8") if code.is_file() else "")
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _published(source: str) -> dict[str, Any]:
    scheme, _, name = source.partition(":")
    return dict(published(find_entry(name))) if scheme == "robustbench" else {}


def _origin(source: str) -> tuple[str | None, dict[str, Any]]:
    """The folder of the training run and its hyper-parameters, where they are recorded."""
    if is_source(source):
        return None, {}
    run = run_of(Path(source))
    return (None if run is None else str(run)), hyperparameters(Path(source))


def _files_of_zoo(job: Job) -> tuple[Path, ...]:
    try:
        return files_of(job.source, model_dir=job.model_dir)
    except CheckpointError:
        if not job.download:
            raise
    from robaudit.checkpoints.sources import open_source

    open_source(job.source, model_dir=job.model_dir, download=True)
    return files_of(job.source, model_dir=job.model_dir)


def _said_of(group: Models) -> tuple[object, ...]:
    """Groups with the same statements about their networks may hold checkpoints of one run."""
    return (group.arch, group.normalize, group.weights)


def _job(group: Models, source: str, data: str, stated: ThreatSpec, peers: tuple[str, ...]) -> Job:
    asked = {**group.only(Request), **dict(stated), "data": data}
    own = {**group.only(PlanSpec), "source": source, "peers": peers}
    if ranked_by_corruptions(source) and stated.norm is None and stated.eps is None:
        return Job(**own, **{**asked, "gap": False, "group": group.group})
    advice = f'Give one: threats = ["{stated.norm or "linf"} 8/255"], or --eps 8/255.'
    threat = threat_of(Request(**asked), [source], advice=advice)
    asked |= {"norm": threat.norm, "eps": threat.eps, "group": group.group}
    asked["hyperparameters"] = tuple(group.hyperparameters.items())
    return Job(**own, **asked)


def _sources(group: Models) -> list[str]:
    """The models of a group, each once, without those excluded."""
    found: list[str] = []
    for pattern in group.files or []:
        files = matching(pattern)
        if not files:
            raise UsageError(f"no checkpoint is {shown(pattern, 300)}", "Check the path.")
        found += files
    for pattern in group.robustbench or []:
        found += _of_robustbench(pattern)
    found += [f"timm:{name}" for name in group.timm or []]
    found += [f"torchvision:{name}" for name in group.torchvision or []]
    excluded = group.exclude
    kept = [source for source in dict.fromkeys(found) if not _matches(source, excluded)]
    if not kept:
        raise UsageError("exclude leaves no model of a table [[models]]", "Take the table out.")
    return kept


def _matches(source: str, patterns: Sequence[str]) -> bool:
    names = (source, Path(source).name, source.partition(":")[2])
    return any(fnmatch.fnmatchcase(name, pattern) for name in names for pattern in patterns)


def _of_robustbench(pattern: str) -> list[str]:
    if not set("*?[") & set(pattern):
        return [find_entry(pattern).text]
    entries = [entry.text for entry in catalogue()]
    found = [text for text in entries if fnmatch.fnmatch(text, f"robustbench:{pattern}")]
    if not found:
        names = [text.partition(":")[2] for text in entries]
        near = did_you_mean(pattern.rstrip("*"), names)
        raise UsageError(
            f"RobustBench has no network that is {pattern!r}{near}",
            'Write it as "cifar10/Linf/*".',
        )
    return found
