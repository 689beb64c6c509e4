"""Several workers on one job: each attacks the examples that no other has begun with.

What is shared out are the batches of AutoAttack's reference library, the longest part of a job: its
verdicts depend on the batches, so that each must be the very one that the job alone would make. A
worker claims a batch and keeps what it found where the job's own audit looks for it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from robaudit.attacks.verification import verify
from robaudit.audit.context import Context
from robaudit.audit.ensembles import autoattack_memory, by_library
from robaudit.audit.journal import Journal
from robaudit.audit.plan import preset
from robaudit.batch.jobs import Job
from robaudit.batch.lock import claimed
from robaudit.engine import frozen
from robaudit.types import Cache, Examples, ThreatModel

_PATIENCE = 0.5  # seconds between two looks for what others have finished
_FIRST = "-00000"  # what a piece of an attack is called that has but one
_Piece = dict[str, Tensor]
# One batch's search by one attack of the ensemble, as the library's front does it.
_Attack = Callable[[Tensor, Cache], object]


def share(
    model: nn.Module,
    examples: Examples,
    job: Job,
    journal: Journal,
    claims: Path,
    going: Callable[[], bool] = lambda: True,
) -> int:
    """Do what is left of a job's AutoAttack together with whoever else calls this for it.

    Args:
        journal: the job's, which every worker sees.
        claims: a folder of locks, likewise.
        going: asked before every batch; where it says no, what others have not begun is left.

    Returns: how many batches this worker did.
    """
    plan = preset(job.preset)
    settings = plan.autoattack
    if settings is None or settings.engine != "reference" or plan.radii:
        return 0
    threat = ThreatModel(job.norm, job.eps)
    context = Context(
        model, {examples.split: examples}, threat, job.seed, "auto",
        "fp32" if job.precision == "float64" else job.precision,
        cache=journal.piece,
    )  # fmt: skip
    with frozen(model):
        logits, again = (context.runner().logits(examples.x).cpu() for _ in range(2))
    if not torch.equal(logits, again):
        return 0  # a network that draws at random, whose batches are no two workers' alike
    right = logits.argmax(1) == examples.y
    x, y = examples.x[right], examples.y[right]
    kept = autoattack_memory(context, settings, threat)
    claims.mkdir(exist_ok=True)

    def attack(rows: Tensor, cache: Cache) -> object:
        return by_library(context, settings, threat, x[rows], y[rows], cache)

    standing, did = torch.ones(len(x), dtype=torch.bool), 0
    for stage in _stages(attack, x) if len(x) else ():
        left = torch.split(torch.nonzero(standing)[:, 0], settings.batch_size)
        waiting = {f"{stage}-{place:05d}": rows for place, rows in enumerate(left) if len(rows)}
        while waiting:
            before = len(waiting)
            for name, rows in list(waiting.items()):
                if not going():
                    return did
                piece = _found(kept, name)
                if piece is None:
                    with claimed(claims / name) as mine:
                        if not mine:
                            continue
                        piece = kept(name, partial(_made, attack, stage, rows, x))
                        did += 1
                broken = piece["broken"]
                broken &= verify(model, x[rows], piece["x"], y[rows], threat).breaks
                standing[rows[broken]] = False
                del waiting[name]
            if len(waiting) == before:
                time.sleep(_PATIENCE)
    return did


def sharing(cache: Cache, begin: Callable[[], object]) -> Cache:
    """A job's ``cache`` that begins with :func:`share` where AutoAttack's first piece is due."""
    begun = False

    def shared(name: str, compute: Callable[[], _Piece]) -> _Piece:
        nonlocal begun
        if not begun and name.startswith("autoattack-"):
            begun = True
            begin()
        return cache(name, compute)

    return shared


def _stages(attack: _Attack, x: Tensor) -> list[str]:
    """The attacks of the ensemble in their order."""
    names: list[str] = []

    def seen(name: str, compute: Callable[[], _Piece]) -> _Piece:
        names.append(name.removesuffix(_FIRST))
        return _nothing(x[:1])

    attack(torch.zeros(1, dtype=torch.long), seen)
    return names


def _made(attack: _Attack, stage: str, rows: Tensor, x: Tensor) -> _Piece:
    """What one attack of the ensemble finds for a batch that the ones before left standing."""
    found: _Piece = {}

    def only(name: str, compute: Callable[[], _Piece]) -> _Piece:
        if name == stage + _FIRST:
            found.update(compute())
        return _nothing(x[rows])

    attack(rows, only)
    return found


def _nothing(x: Tensor) -> _Piece:
    """An attack's piece that breaks no image."""
    broken = torch.zeros(len(x), dtype=torch.bool)
    return {"x": x, "broken": broken, "spent": torch.zeros(2, dtype=torch.long)}


def _found(kept: Cache, name: str) -> _Piece | None:
    def missing() -> _Piece:
        raise LookupError

    try:
        return kept(name, missing)
    except LookupError:
        return None
