"""Ensembles: several attacks in turn, each on the examples that are still robust."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn

from robaudit.attacks.apgd import apgd
from robaudit.attacks.blocks import check_finite, parts, rows_at_once
from robaudit.attacks.diagnostics import BLACK_BOX, Diagnostics
from robaudit.attacks.fab import fab
from robaudit.attacks.few_classes import runnable
from robaudit.attacks.result import STANDS, WRONG, AttackResult
from robaudit.attacks.square import square
from robaudit.engine import TILE, Runner
from robaudit.engine.arguments import checked
from robaudit.engine.runner import BatchSize
from robaudit.engine.spilled import copied
from robaudit.types import AutoAttackVersion, Cache, Progress, ThreatModel, no_cache, share_of

# Examples of an attack that are kept together once they are finished, on a CPU.
_PIECE = 8 * TILE


@dataclass(frozen=True)
class Stage:
    """One attack of an ensemble.

    Attributes:
        run: an attack: a runner, images, labels and a threat model, with the options ``seed``,
            ``index`` and ``progress``.
        passes: its passes on an example that it does not break, for the progress of the whole.
        targets: how many target classes it asks for, 0 where it is untargeted.
        goes_on: it takes ``start``, the images at which the attack before it ended.
        runner: runs the network in this attack, in place of the ensemble's.
    """

    name: str
    run: Callable[..., AttackResult]
    passes: int
    targets: int = 0
    goes_on: bool = False
    runner: Runner | None = None


@checked
def native_autoattack(
    model: nn.Module | Runner,
    x: Tensor,
    y: Tensor,
    threat: ThreatModel,
    *,
    version: AutoAttackVersion = "standard",
    seed: int = 0,
    index: Tensor | None = None,
    batch_size: BatchSize = "auto",
    judge: Runner | None = None,
    cache: Cache = no_cache,
    progress: Progress | None = None,
) -> AttackResult:
    """The attacks of AutoAttack with its settings, in its order, implemented here.

    Random draws depend on the example and not on the batch, so they differ from those of the
    reference library, and so may verdicts on single examples. With fewer than ten classes the
    targeted attacks have ``k - 1`` targets; an attack whose loss needs more classes than there are
    is left out; ``notes`` say so. Where the search is in TF32 or bfloat16, the ensemble ends with
    one more attack, ``apgd-ce-fp32``: APGD-CE on what still stands, by the ``judge``, from the
    starting points of the first attack. So no example stands that APGD-CE breaks in float32.

    Args:
        model: maps images in ``[0, 1]`` to logits ``(n, k)``; it runs in evaluation mode
            with frozen parameters and is left as it was. Or a :class:`robaudit.engine.Runner`.
        x, y: images ``(n, c, h, w)`` in ``[0, 1]`` and labels ``(n,)`` from 0.
        threat: norm and radius of the perturbations.
        version: ``standard``: APGD-CE, targeted APGD-DLR, targeted FAB and Square; ``plus``: more
            restarts, and APGD-DLR and untargeted FAB as well; ``rand``: APGD-CE and APGD-DLR with
            gradients averaged over 20 samples.
        seed: of all random draws.
        index: ``(n,)`` the examples' positions in their data set; each example's draws depend on
            its position and the seed only. ``0..n-1`` unless given.
        batch_size: images per pass on a GPU; no result depends on it. A Runner has its own.
        judge: the network as it stands in float32, where ``model`` is a Runner that searches in a
            coarser precision; unused where that is float32, too. Breaks that the search finds are
            not checked by it: :func:`robaudit.attacks.verify` does that.
        cache: keeps each finished part of the examples, so that an interrupted run can continue.
        progress: called with the work done and the work in all.

    Returns:
        All common fields and those of an ensemble, ``distance`` and ``reached``; ``loss`` is
        ``nan``.

    Raises:
        NotMeasuredError: logits or losses that are not finite.

    Source: Croce & Hein, "Reliable evaluation of adversarial robustness with an ensemble of
    diverse parameter-free attacks", ICML 2020; l1 as in Croce & Hein, "Mind the box", ICML 2021.

    >>> net = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    >>> x, y = torch.rand(2, 1, 2, 2), torch.zeros(2).long()
    >>> found = native_autoattack(net, x, y, ThreatModel("l2", 0.1), version="rand")
    >>> tuple(found.accuracies), found.notes
    (('apgd-ce',), ('apgd-dlr is left out: its loss needs 3 classes',))
    """
    with Runner.of(model, batch_size) as runner:
        coarse = runner.network.precision != "fp32"
        return in_turn(
            runner,
            x,
            y,
            threat,
            partial(_autoattack, threat.norm, version, judge if coarse else None),
            seed=seed,
            index=index,
            cache=cache,
            progress=progress,
        )


def _autoattack(
    norm: str, version: AutoAttackVersion, judge: Runner | None, classes: int
) -> list[Stage]:
    """The attacks of a version, in order, and the first one again by the judge if there is one."""
    wanted = 5 if norm == "l1" and version == "standard" else 9
    restarts = 5 if norm == "l1" or version == "plus" else 1
    samples = 1
    if version == "rand":
        restarts, samples = 1, 20
    targets, fab_targets = min(wanted, classes - 1), min(9, classes - 1)
    many = partial(apgd, restarts=restarts, samples=samples)
    targeted = partial(apgd, loss="dlr", targets=targets, samples=samples)
    near = partial(fab, mode="accuracy")
    stages = (
        Stage("apgd-ce", many, 202 * restarts * samples),
        Stage("apgd-dlr", partial(many, loss="dlr"), 202 * restarts * samples),
        Stage("apgd-t", targeted, 202 * targets, wanted),
        Stage("fab", partial(near, targets=0, restarts=restarts), 200 * restarts * classes),
        Stage("fab-t", partial(near, targets=fab_targets), 300 * fab_targets, 9),
        Stage("square", square, 5000),
    )
    order = {
        "standard": ("apgd-ce", "apgd-t", "fab-t", "square"),
        "plus": ("apgd-ce", "apgd-dlr", "fab", "square", "apgd-t", "fab-t"),
        "rand": ("apgd-ce", "apgd-dlr"),
    }
    known = {stage.name: stage for stage in stages}
    found = [known[name] for name in order[version]]
    if judge is not None:
        found.append(replace(known["apgd-ce"], name="apgd-ce-fp32", runner=judge))
    return found


def in_turn(
    runner: Runner,
    x: Tensor,
    y: Tensor,
    threat: ThreatModel,
    stages_of: Callable[[int], Sequence[Stage]],
    *,
    seed: int = 0,
    index: Tensor | None = None,
    cache: Cache = no_cache,
    progress: Progress | None = None,
) -> AttackResult:
    """Run attacks one after the other, each on the examples that are still robust.

    Args:
        stages_of: the attacks for that many classes; those that need more are left out.
        cache: keeps each finished part of the examples of each attack.
    """
    index = torch.arange(len(x)) if index is None else index
    logits = runner.logits(x).cpu()
    check_finite(logits)
    correct = logits.argmax(1) == y.cpu()
    found = copied(x)
    broken_by = torch.where(correct, STANDS, WRONG)
    distance = torch.full((len(x),), torch.inf)
    reached = torch.full((len(x),), torch.inf)
    stages, classes = stages_of(logits.shape[1]), logits.shape[1]
    targets = {stage.name: stage.targets for stage in stages}
    run_names, notes = runnable(list(targets), targets, classes)
    possible = [stage for stage in stages if stage.name in run_names]
    missing = max(0, *(stage.targets - (classes - 1) for stage in possible))
    accuracies: dict[str, float] = {}
    passes: dict[str, tuple[int, int]] = {}
    zero_gradient = stuck = 0
    spent, total = 0, sum(stage.passes for stage in possible)
    piece_size = _PIECE if runner.device.type == "cpu" else rows_at_once(runner, x)
    ends = copied(x) if any(stage.goes_on for stage in possible) else None
    for place, stage in enumerate(possible):
        rows = torch.nonzero(broken_by == STANDS)[:, 0]
        for part in parts(len(rows), piece_size):
            mine = rows[part]
            share = stage.passes / max(1, len(rows))
            tell = share_of(progress, spent + share * part.start, share * len(mine), total)

            def run(
                stage: Stage = stage, mine: Tensor = mine, tell: Progress | None = tell
            ) -> dict[str, Tensor]:
                some = stage.runner or runner, x[mine], y[mine], threat
                given = {"start": ends[mine]} if ends is not None and stage.goes_on else {}
                how = {"seed": seed, "index": index[mine], "progress": tell, **given}
                return _piece(stage.run(*some, **how))

            piece = cache(f"{stage.name}-{part.start:07d}-{part.stop:07d}", run)
            fell = ~piece["robust"]
            found[mine[fell]] = piece["x"][fell]
            if ends is not None:
                ends[mine] = piece["x"]
            broken_by[mine[fell]] = place
            distance[mine] = torch.minimum(distance[mine], piece["distance"])
            forwards, backwards = piece["passes"].tolist()
            before = passes.get(stage.name, (0, 0))
            passes[stage.name] = before[0] + forwards, before[1] + backwards
            if place == 0:
                reached[mine] = piece["reached"]
                zero_gradient += int(piece["zero_gradient"].sum())
                stuck += int(piece["stuck"].sum())
        accuracies[stage.name] = float((broken_by == STANDS).double().mean())
        spent += stage.passes
    if progress is not None:
        progress(total, total)
    names = tuple(stage.name for stage in possible)
    blind = [place for place, name in enumerate(names) if name in BLACK_BOX]
    return AttackResult(
        x=found,
        loss=torch.full((len(x),), torch.nan),
        robust=broken_by == STANDS,
        correct=correct,
        forwards=len(x) + sum(spent for spent, _ in passes.values()),
        backwards=sum(spent for _, spent in passes.values()),
        accuracies=accuracies,
        notes=tuple(notes),
        broken_by=broken_by,
        passes=passes,
        distance=distance,
        reached=reached,
        diagnostics=Diagnostics(
            attacked=int(correct.sum()),
            zero_gradient=zero_gradient,
            stuck=stuck,
            black_box_only=sum(int((broken_by == place).sum()) for place in blind),
            targets_missing=missing,
        ),
    )


def _piece(found: AttackResult) -> dict[str, Tensor]:
    """What is cached of an attack on some examples: tensors that share no memory."""
    unknown = {
        "distance": torch.full(found.robust.shape, torch.inf),
        "zero_gradient": torch.zeros_like(found.robust),
        "stuck": torch.zeros_like(found.robust),
        "reached": torch.full(found.robust.shape, torch.inf),
    }
    told = {name: getattr(found, name) for name in unknown}
    return {
        "x": found.x,
        "robust": found.robust,
        **{name: unknown[name] if rows is None else rows for name, rows in told.items()},
        "passes": torch.tensor([found.forwards, found.backwards]),
    }
