"""What every measuring command does: load, audit, show, write."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import typer

from robaudit.cli.bars import progress_bar
from robaudit.cli.data_of import with_data
from robaudit.cli.messages import console, say, say_of
from robaudit.cli.opening import Opening
from robaudit.cli.options import FLOAT64_IS_OF_CURVATURE, Format, Precision, Settings
from robaudit.cli.refusals import interrupted, refusal_of
from robaudit.errors import (
    DataError,
    NotMeasuredError,
    RobauditError,
    UsageError,
)
from robaudit.types import no_cache

if TYPE_CHECKING:
    from robaudit import report
    from robaudit.audit import Audit, Plan
    from robaudit.audit.adversarial_file import Adversarial
    from robaudit.checkpoints import Classifier
    from robaudit.report.gallery import Gallery
    from robaudit.schema import Report
    from robaudit.types import Cache, Examples, ThreatModel


@dataclass(frozen=True)
class Surrogate:
    """The network whose adversarial examples are tried on the audited one."""

    source: str
    arch: str | None = None
    normalize: str | None = None


def measure(
    checkpoints: list[str],
    plan: Plan,
    settings: Settings,
    *,
    surrogate: Surrogate | None = None,
    replayed: Adversarial | None = None,
    save_adv: Path | None = None,
    exact: bool = False,
    curve_of_one: bool = False,
) -> None:
    """Audit every checkpoint by ``plan``, show and write the reports; see :func:`run`.

    A checkpoint that cannot be audited does not stop the others. Exits with 3 when a measurement
    failed and with the error's code when a checkpoint could not be audited.
    """
    found, code = run(
        checkpoints, plan, settings, surrogate, replayed, save_adv, exact=exact,
        curve_of_one=curve_of_one,
    )  # fmt: skip
    if any(not isinstance(one, str) for one in found):
        show(found, Format.json if settings.json else settings.format)
    if code:
        raise typer.Exit(code)


def run(
    checkpoints: list[str],
    plan: Plan,
    settings: Settings,
    surrogate: Surrogate | None = None,
    replayed: Adversarial | None = None,
    save_adv: Path | None = None,
    *,
    exact: bool = False,
    curve_of_one: bool = False,
) -> tuple[list[Report | str], int]:
    """A report for each checkpoint, or its name where it could not be audited; the exit code.

    Args:
        exact: a normalisation that only leaves robust accuracy alone is not good enough.
        curve_of_one: several checkpoints are shown as a curve, so they must be of one network.
    """
    if settings.precision is Precision.float64 and plan.wci is None and plan.hessian is None:
        raise UsageError(*FLOAT64_IS_OF_CURVATURE)
    settings = with_data(settings, checkpoints)
    clean_alone = not plan.attacks and settings.eps is None
    threat = None if clean_alone else threat_of(settings, checkpoints)
    batch_size = batch_size_of(settings.batch_size)
    if settings.sha256 is not None and len(checkpoints) > 1:
        raise UsageError("--sha256 is one file's, but there are several checkpoints")
    if save_adv is not None and len(checkpoints) > 1:
        raise UsageError("--save-adv is one checkpoint's file, but there are several checkpoints")
    names = _folder_names(checkpoints)
    found: list[Report | str] = []
    codes: list[int] = []
    lost: list[UsageError] = []
    said: list[RobauditError] = []  # checkpoints of one question share its error
    try:
        with ExitStack() as stack:
            folder = None
            if settings.out is not None:
                from robaudit.report import report_folder

                folder = stack.enter_context(report_folder(settings.out))
            examples, train = load_splits(plan, settings)
            if replayed is not None:
                from robaudit.audit.adversarial_file import check_same_data

                check_same_data(replayed, examples)
            opening = Opening.of(checkpoints, examples, threat, settings, exact=exact)
            if curve_of_one and len(checkpoints) > 1:
                opening.check_one_network(checkpoints)
            other = None
            if surrogate is not None:
                other = opening.other(surrogate.source, surrogate.arch, surrogate.normalize)

            def one(checkpoint: str, name: str, plan: Plan) -> Report | None:
                """What was measured; ``None`` where the checkpoint has no result."""
                state = settings.state
                if state is not None and len(checkpoints) > 1:
                    state = state / name
                try:
                    done, gallery = _audit(
                        checkpoint, opening, examples, train, threat, plan, settings, batch_size,
                        state, surrogate=other, replayed=replayed,
                    )  # fmt: skip
                except BaseException as error:
                    refusal = refusal_of(error)
                    if len(checkpoints) == 1 or refusal is None:
                        raise
                    if refusal in said:
                        say(f"{checkpoint}: the same question")
                    else:
                        say_of(checkpoint, refusal)
                    said.append(refusal)
                    codes.append(refusal.exit_code)
                    return None
                try:
                    if save_adv is not None and done.adversarial is not None:
                        from robaudit.audit.adversarial_file import save_adversarial

                        save_adversarial(save_adv, done.adversarial)
                    if folder is not None:
                        _write(folder if len(checkpoints) == 1 else folder / name, done, gallery)
                except UsageError as error:
                    lost.append(error)
                except RobauditError as error:  # a file is missing; the folder is one all the same
                    say_of(checkpoint, error)
                    codes.append(error.exit_code)
                return done.report

            for checkpoint, name in zip(checkpoints, names, strict=True):
                found.append(one(checkpoint, name, plan) or checkpoint)
            unlike, same = _unlike_the_others(found, plan)
            for at in unlike:
                if not settings.quiet:
                    say(
                        f"{checkpoints[at]}: measured again, with the Gauss-Newton traces that "
                        "another checkpoint's index had to take: the points of a curve are of one "
                        "quantity"
                    )
                found[at] = one(checkpoints[at], names[at], same) or found[at]
            reports = _reports(found)
            if any(m.status == "failed" for report in reports for m in report.measurements):
                codes.append(3)
            if folder is not None and not reports:
                raise typer.Exit(codes[0])
            if lost:
                raise lost[0]
            if folder is not None:
                _fill(folder, found, reports, names)
    except UsageError as error:
        if not _reports(found):
            raise
        # What was measured is shown all the same.
        say(error.message, error.advice)
        codes.append(error.exit_code)
    except KeyboardInterrupt as interrupt:
        raise interrupted(settings.state) from interrupt
    return found, codes[0] if codes else 0


def _fill(folder: Path, found: list[Report | str], reports: list[Report], names: list[str]) -> None:
    """What is about several reports together."""
    from robaudit.report.folder import fill_curve, fill_index
    from robaudit.report.wci_curve import is_wci_curve, wci_curve

    if is_wci_curve(reports):
        fill_curve(folder, wci_curve(found))
    if len(reports) > 1:
        there = [n for one, n in zip(found, names, strict=True) if not isinstance(one, str)]
        fill_index(folder, reports, there)


def _unlike_the_others(found: Sequence[Report | str], plan: Plan) -> tuple[list[int], Plan]:
    """Whose WCI has the Hessian's traces where another's had to take the Gauss-Newton matrix's; and
    the plan that gives all the same. Where a network has no curvature of its own both are one.
    """

    def measured(report: Report | str) -> list[dict[str, Any]]:
        if isinstance(report, str):
            return []
        return [m.details for m in report.measurements if m.name == "wci" and m.status == "ok"]

    taken = [d["estimator"] for r in found for d in measured(r) if d["quantity"] == "gauss-newton"]
    if plan.wci is None or not taken:
        return [], plan
    unlike = [
        at
        for at, report in enumerate(found)
        if any(details["estimator"] == "hessian" for details in measured(report))
    ]
    return unlike, replace(plan, wci=replace(plan.wci, estimator=taken[0]))


def show(found: Sequence[Report | str], format: Format) -> None:
    """Print the reports: in colour on a terminal, as plain text elsewhere.

    Args:
        found: a report, or the name of a checkpoint that was asked for and could not be audited,
            which leaves a gap in a curve; where several were asked for, JSON is an array.
    """
    from robaudit.report import render, screen

    if format is Format.table:
        console().print(screen(found))
        return
    name = cast("report.Format", format.value)
    sys.stdout.write(render(_reports(found), name, several=len(found) > 1))


def _reports(found: Sequence[Report | str]) -> list[Report]:
    return [one for one in found if not isinstance(one, str)]


def _audit(
    checkpoint: str,
    opening: Opening,
    examples: Examples,
    train: Examples | None,
    threat: ThreatModel | None,
    plan: Plan,
    settings: Settings,
    batch_size: int | Literal["auto"],
    state: Path | None,
    **others: Any,
) -> tuple[Audit, Gallery | None]:
    """The audit, and the adversarial examples to show where a folder is written."""
    from robaudit.audit import audit

    model = opening.open(checkpoint)
    cache = no_cache if state is None else _journal(state, model, examples, threat, settings)
    with progress_bar(Path(checkpoint).stem, settings.quiet) as watch:
        done = audit(
            model, examples, threat, plan, train=train, seed=settings.seed, batch_size=batch_size,
            precision=settings.precision.value, watch=watch, cache=cache,
            samples=settings.samples, straight_through=settings.straight_through or (), **others,
        )  # fmt: skip
    if settings.out is None or done.adversarial is None:
        return done, None
    from robaudit.audit.failures import not_measured
    from robaudit.report.gallery import make_gallery

    try:
        with not_measured():
            return done, make_gallery(model, examples, done.adversarial)
    except NotMeasuredError as error:  # pictures alone are missing
        say(f"{checkpoint}: no gallery: {error.message}")
        return done, None


def _journal(
    folder: Path,
    model: Classifier,
    examples: Examples,
    threat: ThreatModel | None,
    settings: Settings,
) -> Cache:
    import torch

    import robaudit
    from robaudit.audit.journal import open_journal, threads_kept, weights_digest

    # Pieces of one run round alike: it goes on with the threads that it began with.
    threads = threads_kept(folder) or torch.get_num_threads()
    torch.set_num_threads(threads)
    key = {
        "threads": threads,
        "robaudit": robaudit.__version__,
        "weights": weights_digest(model),
        "architecture": model.origin.architecture,
        "normalization": model.origin.normalization,
        "data": examples.sha256,
        "threat": None if threat is None else {"norm": threat.norm, "eps": threat.eps},
        "seed": settings.seed,
    }
    return open_journal(folder, key).piece


def load_splits(plan: Plan, settings: Settings) -> tuple[Examples, Examples | None]:
    """The examples the options name; that they have no training split is said on stderr."""
    from robaudit import data

    def without(error: DataError) -> None:
        if not settings.quiet:
            say(f"no generalisation gaps: {error.message}", "Give --train-data, or --no-gap.")

    # Only files are work to read; a bar for anything else would be gone before it is seen.
    quiet = settings.quiet or not settings.data.startswith("imagefolder:")
    with progress_bar(settings.data, quiet) as watch, watch("reading images") as progress:
        return data.load_splits(
            settings.data,
            settings.split.value,
            gap=settings.gap,
            train_data=settings.train_data,
            n=settings.n,
            at_most=plan.n,
            sample_seed=settings.seed if settings.sample else None,
            data_dir=settings.data_dir,
            download=settings.download,
            without=without,
            progress=progress,
        )


def threat_of(settings: Settings, checkpoints: Sequence[str] = ()) -> ThreatModel:
    """The threat model asked for, else a zoo entry's own, else the usual one for the data set."""
    from robaudit.checkpoints.sources import zoo_threat
    from robaudit.data import default_threat
    from robaudit.types import Norm, ThreatModel, parse_eps

    settings = with_data(settings, checkpoints)
    own = {source: stated for source in checkpoints if (stated := zoo_threat(source)) is not None}
    norm: Norm = "linf"
    if settings.norm is not None:
        norm = settings.norm.value
    elif own:
        norms = {stated[1] for stated in own.values()}
        if len(norms) > 1:
            raise UsageError(
                f"the checkpoints' own threat models differ: {', '.join(own)}",
                "Say which one holds for all: --norm linf --eps 8/255.",
            )
        norm = norms.pop()
    if settings.eps is not None:
        return ThreatModel(norm, parse_eps(settings.eps), settings.force_eps)
    usual = default_threat(settings.data, norm)
    for dataset, _ in own.values():
        usual = usual or default_threat(dataset, norm)
    if usual is None:
        # A name that is misspelt has no usual radius either: say that, not this.
        _one_example(settings)
        raise UsageError(
            f"no usual {norm} radius is known for --data {settings.data}",
            "Give one: --eps 8/255.",
        )
    return usual


def _one_example(settings: Settings) -> None:
    from robaudit.data import load_examples

    load_examples(
        settings.data, split=settings.split.value, n=1, data_dir=settings.data_dir,
        download=settings.download,
    )  # fmt: skip


def batch_size_of(text: str) -> int | Literal["auto"]:
    if text == "auto":
        return "auto"
    if not text.isdigit() or int(text) < 1:
        raise UsageError(f"--batch-size {text}: neither auto nor a positive number")
    return int(text)


def _folder_names(sources: list[str]) -> list[str]:
    """A folder for each checkpoint: its stem, with its parent's name where stems repeat."""
    checkpoints = [Path(source.replace(":", "-")) for source in sources]
    stems = [checkpoint.stem for checkpoint in checkpoints]
    names = [
        stem if stems.count(stem) == 1 else f"{checkpoint.absolute().parent.name}-{checkpoint.name}"
        for stem, checkpoint in zip(stems, checkpoints, strict=True)
    ]
    return [name if names.count(name) == 1 else f"{at + 1}-{name}" for at, name in enumerate(names)]


def _write(folder: Path, done: Audit, gallery: Gallery | None) -> None:
    from robaudit.report import fill_folder

    outcomes = {name: rows.numpy() for name, rows in done.outcomes.items()}
    fill_folder(folder, done.report, outcomes, gallery)
