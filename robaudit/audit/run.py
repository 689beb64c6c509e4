"""The audit: run a plan's probes on one classifier and write down what they found."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path

import torch
from torch import Tensor, nn

import robaudit
from robaudit.audit import sanity
from robaudit.audit.adversarial_file import Adversarial
from robaudit.audit.certificates import held_against_attacks
from robaudit.audit.clusters import clustered, clusters_note
from robaudit.audit.context import Context
from robaudit.audit.doubts import Doubt, doubted, falls, inherited
from robaudit.audit.draws import described, network_of, refusal
from robaudit.audit.failures import not_measured
from robaudit.audit.names import authors, check_names
from robaudit.audit.outputs import outputs_beyond
from robaudit.audit.plan import Plan
from robaudit.audit.plan import preset as plan_of
from robaudit.audit.probe import Probe
from robaudit.audit.provenance import provenance
from robaudit.audit.searches import with_arithmetic
from robaudit.audit.work import Work
from robaudit.brief import brief
from robaudit.checkpoints.suitability import check_suits
from robaudit.display import Watch, no_watch
from robaudit.engine import Arithmetic, devices_of
from robaudit.engine.arguments import checked
from robaudit.engine.runner import BatchSize
from robaudit.engine.spilled import computed
from robaudit.errors import NotMeasuredError
from robaudit.measures import register
from robaudit.notebook import Beside
from robaudit.schema import Data, Measurement, Report, Subject, Threat
from robaudit.types import Cache, Examples, Progress, ThreatModel, no_cache

# Where clean images alone are measured, what is odd about the network is looked for near them.
_NEAR = ThreatModel("linf", 1 / 255)


@dataclass(frozen=True)
class Audit:
    """A report, and the per-example outcomes that do not belong in it.

    Attributes:
        outcomes: ``"split.name"`` to a tensor with one row per example.
        adversarial: an image for each audited example, where something attacked them.
    """

    report: Report
    outcomes: dict[str, Tensor]
    adversarial: Adversarial | None = None

    __repr__ = brief


@checked
def audit(
    model: nn.Module,
    examples: Examples,
    threat: ThreatModel | None,
    plan: Plan,
    *,
    train: Examples | None = None,
    seed: int = 0,
    batch_size: BatchSize = "auto",
    precision: Arithmetic = "auto",
    surrogate: nn.Module | None = None,
    replayed: Adversarial | None = None,
    watch: Watch = no_watch,
    progress: Progress | None = None,
    cache: Cache = no_cache,
    samples: int | None = None,
    straight_through: Sequence[str] = (),
    data_dir: Path | None = None,
) -> Audit:
    """Run every probe of ``plan``; one that cannot be measured becomes a failed measurement.

    Args:
        model: a :class:`robaudit.checkpoints.Classifier`, or any module from images in [0, 1] to
            logits.
        examples: the examples to audit on.
        threat: ``None`` where the plan attacks nothing.
        train: examples of the training split, for the generalisation gaps.
        precision: of searches; whatever counts is verified in float32. ``float64`` is that of WCI
            and spectra; searches are then in float32.
        surrogate: the network that a plan's transfer attack is made on.
        replayed: the adversarial examples that a plan replays, made of these examples.
        watch: opens a progress display for a named piece of work.
        progress: is told how much of the plan is done, in the passes that were planned for it.
        cache: keeps finished pieces of attacks.
        samples: draws of a network that draws at random, for its votes and its gradients
            (:mod:`robaudit.engine.voting`); ``None`` for ten where it does.
        straight_through: modules that gradients of attacks go straight through.
        data_dir: where data sets are, for probes that need images beside the audited ones.

    Raises:
        CheckpointError: the model does not take the images or has fewer outputs than labels.
    """
    started, clock = datetime.now(UTC), time.perf_counter()
    splits = {part.split: part for part in (examples, train) if part is not None}
    for part in splits.values():
        check_suits(model, part)
    check_names(model, plan)
    costs = plan.costs(len(examples), 0 if train is None else len(train))
    context = Context(
        network_of(model, examples, samples, seed, straight_through),
        splits,
        threat or _NEAR,
        seed,
        batch_size,
        "fp32" if precision == "float64" else precision,
        plan.radii,
        surrogate,
        replayed,
        watch,
        cache,
        double=precision == "float64",
        passes=plan.passes(len(examples)),
        data_dir=data_dir,
        work=Work(sum(passes for _, passes in costs), progress),
    )
    warnings = list(getattr(getattr(model, "origin", None), "warnings", ()))
    measurements: list[Measurement] = []
    findings = sanity.sanity(context)
    findings.add(_alike(model))
    for probe, passes in costs:
        register(probe.measures)
        with context.work.probe(passes):
            measurements += _measured(probe, context)
    measurements = described(context, held_against_attacks(context, measurements))
    measurements = clustered(context, inherited(falls(doubted(measurements, findings))))
    warnings += findings.unplaced(m.name for m in measurements if m.status == "ok")
    warnings += sanity.claims(model, measurements, context.main) + context.running_notes()
    warnings += clusters_note(context)
    subject = subject_of(model)
    hardest = strongest(context, subject)
    warnings += outputs_beyond(context, None if hardest is None else hardest.x)
    report = Report(
        robaudit=robaudit.__version__,
        subject=subject,
        data=data_of(examples),
        train_data=None if train is None else data_of(train),
        threat=None if threat is None else Threat(norm=threat.norm, eps=threat.eps),
        measurements=measurements,
        warnings=warnings,
        provenance=provenance(
            seed=seed,
            started=started,
            seconds=time.perf_counter() - clock,
            devices=devices_of(model),
            batch_size=None if batch_size == "auto" else batch_size,
            precision="float64" if context.double else context.searched,
            nudge=context.nudge,
        ),
    )
    return Audit(report, context.outcomes, hardest)


def run_audit(
    model: nn.Module,
    examples: Examples,
    threat: ThreatModel,
    *,
    preset: str = "standard",
    probes: Sequence[Probe] = (),
    train: Examples | None = None,
    seed: int = 0,
    batch_size: BatchSize = "auto",
    samples: int | None = None,
) -> Report:
    """Audit a classifier with the probes of a preset.

    Args:
        model: a :class:`robaudit.Classifier`, or any module from images ``(n, c, h, w)`` in [0, 1]
            to logits ``(n, k)``; it is left unchanged.
        examples: the examples to audit on.
        threat: the threat model of the attacks.
        preset: ``quick``, ``standard`` or ``paper``.
        probes: further probes, which replace the preset's of the same type. Your own are subclasses
            of :class:`robaudit.audit.probe.Probe`.
        train: examples of the training split, for the generalisation gaps.
        seed: of all random draws.
        batch_size: images per pass on a GPU, or ``auto``; on a CPU it has no effect.
        samples: draws per vote and per gradient for a randomised network; ``None`` for ten.

    Returns:
        The report: one measurement per measure, with intervals; a probe that fails gives
        measurements with ``status="failed"`` and a reason.

    Raises:
        UsageError: an unknown preset, or an invalid argument.
        CheckpointError: the model does not accept the images, or has fewer outputs than labels.

    >>> examples = robaudit.load_examples("digits", n=16)
    >>> net = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    >>> report = run_audit(net, examples, ThreatModel("linf", 0.1), preset="quick")
    >>> report.get("accuracy.clean").n
    16
    """
    plan = plan_of(preset).put(*probes)
    done = audit(
        model,
        examples,
        threat,
        plan,
        train=train,
        seed=seed,
        batch_size=batch_size,
        samples=samples,
    )
    outcomes = {name: rows.numpy() for name, rows in done.outcomes.items()}
    done.report._beside = Beside(outcomes, _gallery(model, examples, done.adversarial))
    return done.report


def _gallery(model: nn.Module, examples: Examples, found: Adversarial | None) -> object | None:
    """The few images that a report folder shows; ``None`` where they cannot be made."""
    if found is None:
        return None
    # By name: reports are in a room above this one.
    make = import_module("robaudit.report.gallery").make_gallery
    try:
        with not_measured():
            gallery: object = make(model, examples, found)
    except NotMeasuredError:
        return None
    return gallery


def strongest(context: Context, subject: Subject) -> Adversarial | None:
    """For each example the first attack's image that counts, else the one of highest loss."""
    if not context.broken:
        return None
    examples = context.splits[context.main]
    sources = [examples.x, *(images for images, _ in context.broken.values())]
    which = torch.zeros(len(examples), dtype=torch.long)
    for at, (_, counts) in enumerate(context.broken.values(), 1):
        which[counts & (which == 0)] = at
    broken = which > 0
    # What stands gets the worst point that an ascent met, as a transfer needs it.
    worst = next((made for made in ("pgd", "cw") if made in context.broken), None)
    if worst is not None:
        which[~broken] = 1 + list(context.broken).index(worst)

    def rows_of(rows: Tensor) -> Tensor:
        found = examples.x[rows].clone()
        for at in sorted(set(which[rows].tolist())):
            mine = which[rows] == at
            found[mine] = sources[at][rows[mine]]
        return found

    return Adversarial(
        x=computed(examples.x, rows_of),
        y=examples.y,
        index=examples.index,
        broken=broken,
        threat=context.threat,
        data=examples.name,
        split=examples.split,
        data_sha256=examples.sha256,
        made_on=subject.sha256 or subject.source,
        made_by=",".join(context.broken),
    )


def _measured(probe: Probe, context: Context) -> list[Measurement]:
    """Run one probe; its time is recorded on its first measurement.

    Whatever is raised while the network is attacked or differentiated ends its probe alone, so
    that the other measurements are not lost.
    """
    clock = time.perf_counter()
    names = probe.expected
    if (reason := refusal(context, names)) is not None:
        return _failed(names, reason, context)
    try:
        with not_measured():
            found = with_arithmetic(probe, context, probe.run(context))
            context.sync()
    except NotMeasuredError as error:
        return _failed(names, authors(context.model)(error.message), context)
    seconds = time.perf_counter() - clock
    return [found[0].model_copy(update={"seconds": seconds}), *found[1:]]


def _failed(names: Sequence[str], reason: str, context: Context) -> list[Measurement]:
    return [
        Measurement(name=name, split=context.main, status="failed", reason=reason) for name in names
    ]


def _alike(model: nn.Module) -> list[Doubt]:
    """A normalisation that does not matter to robust accuracy matters to curvature."""
    harmless = getattr(getattr(model, "origin", None), "harmless", "")
    if not harmless:
        return []
    text = f"{harmless}; curvature is not: say which it was with --arch and --normalize"
    return [Doubt("curvature", text)]


def subject_of(model: nn.Module) -> Subject:
    """What a report says of the checkpoint."""
    origin = getattr(model, "origin", None)
    if origin is None:
        return Subject(
            source=type(model).__name__,
            sha256=None,
            format="module",
            architecture=type(model).__name__,
            identified_by="given as a module",
            normalization="inside the module",
            normalized_by="the module itself",
            architecture_known="said",
            normalization_known="said",
            parameters=sum(p.numel() for p in model.parameters()),
        )
    shared = {name: getattr(origin, name) for name in Subject.model_fields if hasattr(origin, name)}
    return Subject(**shared, evidence=list(origin.trials))


def data_of(examples: Examples) -> Data:
    """What a report says of the examples."""
    return Data(
        name=examples.name,
        split=examples.split,
        n=len(examples),
        sha256=examples.sha256,
        classes=examples.classes,
    )
