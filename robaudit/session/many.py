"""Audits checkpoints by one plan and writes their reports."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from robaudit.audit import Audit, Plan
from robaudit.audit.adversarial_file import Adversarial, check_same_data, save_adversarial
from robaudit.audit.failures import not_measured
from robaudit.audit.plan import planned
from robaudit.audit.probes import Corruptions, Wci
from robaudit.checkpoints import Classifier
from robaudit.display import Display, Whole
from robaudit.errors import NotMeasuredError, RobauditError, UsageError
from robaudit.notebook import Beside
from robaudit.report import fill_folder, report_folder
from robaudit.report.folder import fill_curve, fill_index
from robaudit.report.gallery import Gallery, make_gallery
from robaudit.report.wci_curve import is_wci_curve, wci_curve
from robaudit.request import PresetName, Request, made
from robaudit.schema import Report
from robaudit.session.refusals import interrupted, refusal_of
from robaudit.session.session import Session, found_line
from robaudit.types import no_cache


@dataclass(frozen=True)
class Surrogate:
    """The network whose adversarial examples are tried on the audited one."""

    source: str
    arch: str | None = None
    normalize: str | None = None


@dataclass
class Outcome:
    """What became of each checkpoint.

    Attributes:
        found: a report, or the checkpoint's name where it could not be audited.
        codes: exit codes of what went wrong, in order.
    """

    found: list[Report | str] = field(default_factory=list)
    codes: list[int] = field(default_factory=list)

    @property
    def reports(self) -> list[Report]:
        """Those of the checkpoints that were audited."""
        return [one for one in self.found if not isinstance(one, str)]

    @property
    def code(self) -> int:
        """The exit code of all."""
        return self.codes[0] if self.codes else 0


def audit_checkpoint(
    source: str | Path,
    *,
    preset: PresetName = "standard",
    also: Sequence[str] = (),
    union: str | None = None,
    out: str | Path | None = None,
    display: Display | None = None,
    **settings: Any,
) -> Report:
    """Open a checkpoint, audit it by a preset's plan, and write the report folder.

    Args:
        source: a file, or a zoo's name such as ``"robustbench:cifar10/Linf/NAME"``.
        preset: ``"quick"``, ``"standard"`` or ``"paper"``, see :func:`robaudit.audit.preset`.
        also, union: further probes, and the norms of a union, see
            :func:`robaudit.audit.plan.planned`.
        out: the folder to write; ``None`` writes nothing.
        display: shown progress and messages; ``None`` shows nothing.
        settings: fields of :class:`robaudit.request.Request`: ``data``, ``data_dir``, ``n``,
            ``norm``, ``eps`` (a number, or text such as ``"8/255"``), ``arch`` (also a function
            or class that builds the network), ``normalize``, ``device``, ``seed`` and the rest.
            They mean what the options of ``robaudit audit`` mean and have the same defaults.

    Returns:
        The report. Where ``out`` is given, the folder holds it in every format, with per-example
        outcomes and adversarial examples.

    Raises:
        UsageError: an unknown setting, or a value that cannot be meant.
        DataError: the examples cannot be had.
        CheckpointError: the checkpoint is unsafe, unreadable or not identified.

    >>> import robaudit as ra
    >>> from robaudit.checkpoints import samples_dir
    >>> report = ra.audit_checkpoint(
    ...     samples_dir() / "robust.pt", preset="quick", data="digits", n=4, gap=False
    ... )
    >>> report.data.n, report.get("accuracy.pgd").n
    (4, 4)
    """
    arch = settings.pop("arch", None)
    built = callable(arch)  # code, which files of settings cannot hold
    asked = made(Request, {"gap": True, **settings, **({} if built else {"arch": arch})})
    asked = asked.changed(arch=arch) if built else asked
    folder = None if out is None else Path(out)
    return audit_all(
        [str(source)],
        planned(preset, also, union),
        asked,
        out=folder,
        display=display,
        beside=True,
    ).reports[0]


def audit_all(
    sources: Sequence[str],
    plan: Plan,
    asked: Request,
    *,
    out: Path | None = None,
    display: Display | None = None,
    surrogate: Surrogate | None = None,
    replayed: Adversarial | None = None,
    save_adv: Path | None = None,
    exact: bool = False,
    curve_of_one: bool = False,
    beside: bool = False,
    on_result: Callable[[Path], None] = lambda _: None,
) -> Outcome:
    """Audit each checkpoint by ``plan`` and write the report folder.

    A checkpoint that cannot be audited does not stop the others; where there is only one, its
    error is raised.

    Args:
        out: the folder of the one report, or of a report folder for each checkpoint.
        surrogate: the network that a plan's transfer attack is made on.
        replayed: the adversarial examples that a plan replays.
        save_adv: the file that the adversarial examples are written to.
        exact: a normalisation that does not matter to robust accuracy is not good enough.
        curve_of_one: several checkpoints are shown as a curve, so they must be of one network.
        beside: reports keep what :meth:`robaudit.Report.save` writes beside them.
        on_result: called with each report's folder once all are written.

    Raises:
        RobauditError: nothing could be audited, or what was audited not written.
        Interrupted: by Ctrl-C.
    """
    display = display or Display()
    for name, value in (("sha256", asked.sha256), ("save_adv", save_adv)):
        if value is not None and len(sources) > 1:
            raise UsageError(f"{name} is one file's, but there are several checkpoints", field=name)
    outcome = Outcome()
    try:
        with ExitStack() as stack:
            folder = None if out is None else stack.enter_context(report_folder(out))
            clean_alone = not plan.attacks
            session = Session.begin(
                sources,
                asked,
                at_most=plan.n,
                clean_alone=clean_alone,
                corrupted=plan.on_corrupted,
                exact=exact,
                display=display,
            )
            if (corruptions := plan.get(Corruptions)) is not None:
                corruptions.opened(session.examples, session.request.data_dir)
            if replayed is not None:
                check_same_data(replayed, session.examples)
            if curve_of_one and len(sources) > 1:
                session.check_one_network(sources)
            other = None
            if surrogate is not None:
                other = session.other(surrogate.source, surrogate.arch, surrogate.normalize)
            run = _Run(session, tuple(sources), folder, other, replayed, save_adv, beside, outcome)
            run.all_by(plan)
    except _NothingFoundError:
        pass
    except UsageError as error:
        if not outcome.reports:
            raise
        # What was measured is there all the same.
        display.warn(error.message, error.advice)
        outcome.codes.append(error.exit_code)
    except KeyboardInterrupt as interrupt:
        raise interrupted(asked.state) from interrupt
    if out is not None:
        for one, name in zip(outcome.found, folder_names(sources), strict=False):
            if not isinstance(one, str):
                on_result(out if len(sources) == 1 else out / name)
    return outcome


class _NothingFoundError(Exception):
    """No checkpoint could be audited, so that the folder is not written."""


@dataclass
class _Run:
    """The audits of :func:`audit_all`.

    Attributes:
        unwritten: errors of files that could not be written.
        told: errors that were shown; checkpoints that are one question share theirs.
        said: what the last checkpoint was found to be.
        whole: how far all is.
    """

    session: Session
    sources: tuple[str, ...]
    folder: Path | None
    surrogate: Classifier | None
    replayed: Adversarial | None
    save_adv: Path | None
    beside: bool
    outcome: Outcome
    unwritten: list[UsageError] = field(default_factory=list)
    told: list[RobauditError] = field(default_factory=list)
    said: str = ""
    whole: Whole = field(default_factory=Whole)

    def all_by(self, plan: Plan) -> None:
        """Audit every checkpoint, and write what is about several reports together."""
        outcome, names = self.outcome, folder_names(self.sources)
        self.whole = Whole(len(self.sources))
        for source, name in zip(self.sources, names, strict=True):
            self.whole.begin()
            outcome.found.append(self._one(source, name, plan) or source)
        unlike, same = _unlike_the_others(outcome.found, plan)
        for at in unlike:
            self.session.display.note(
                f"{self.sources[at]}: measured again, with the Gauss-Newton traces that another "
                "checkpoint's index had to take: the points of a curve are of one quantity"
            )
            outcome.found[at] = self._one(self.sources[at], names[at], same) or outcome.found[at]
        if any(m.status == "failed" for report in outcome.reports for m in report.measurements):
            outcome.codes.append(NotMeasuredError.exit_code)
        if self.folder is not None and not outcome.reports:
            raise _NothingFoundError
        if self.unwritten:
            raise self.unwritten[0]
        if self.folder is not None:
            _fill(self.folder, outcome, names)

    def _one(self, source: str, name: str, plan: Plan) -> Report | None:
        """The report of a checkpoint; ``None`` where it could not be audited."""
        display = self.session.display
        try:
            done, gallery = self._audit(source, name, plan)
        except BaseException as error:
            refused = refusal_of(error)
            if len(self.sources) == 1 or refused is None:
                raise
            if refused in self.told:
                display.warn(f"{source}: the same question")
            else:
                display.failed(source, refused)
            self.told.append(refused)
            self.outcome.codes.append(refused.exit_code)
            return None
        if self.beside:
            done.report._beside = Beside(arrays(done), gallery)
        try:
            self._write(name, done, gallery)
        except UsageError as error:
            self.unwritten.append(error)
        except RobauditError as error:  # one file is missing; the folder is complete otherwise
            display.failed(source, error)
            self.outcome.codes.append(error.exit_code)
        return done.report

    def _audit(self, source: str, name: str, plan: Plan) -> tuple[Audit, Gallery | None]:
        """The audit, and the adversarial examples to show where a folder is or may be written."""
        session, state = self.session, self.session.request.state
        if state is not None and len(self.sources) > 1:
            state = state / name
        model = session.open(source, quiet=True, whole=self.whole)
        said = found_line(model)
        if said != self.said:  # checkpoints that are alike are one line
            session.display.note(f"{source}: {said}")
            self.said = said
        done = session.audit(
            model,
            plan,
            Path(source).stem,
            cache=no_cache if state is None else session.journal(state, model),
            surrogate=self.surrogate,
            replayed=self.replayed,
            whole=self.whole,
        )
        if done.adversarial is None or (self.folder is None and not self.beside):
            return done, None
        try:
            with not_measured():
                return done, make_gallery(model, session.examples, done.adversarial)
        except NotMeasuredError as error:  # pictures alone are missing
            session.display.warn(f"{source}: no gallery: {error.message}")
            return done, None

    def _write(self, name: str, done: Audit, gallery: Gallery | None) -> None:
        if self.save_adv is not None and done.adversarial is not None:
            save_adversarial(self.save_adv, done.adversarial)
        if self.folder is None:
            return
        target = self.folder if len(self.sources) == 1 else self.folder / name
        fill_folder(target, done.report, arrays(done), gallery)


def arrays(done: Audit) -> dict[str, Any]:
    """The per-example outcomes of an audit as numpy arrays."""
    return {name: rows.numpy() for name, rows in done.outcomes.items()}


def folder_names(sources: Sequence[str]) -> list[str]:
    """A folder for each checkpoint: its stem, with its parent's name where stems repeat."""
    paths = [Path(source.replace(":", "-")) for source in sources]
    stems = [path.stem for path in paths]
    names = [
        stem if stems.count(stem) == 1 else f"{path.absolute().parent.name}-{path.name}"
        for stem, path in zip(stems, paths, strict=True)
    ]
    return [name if names.count(name) == 1 else f"{at + 1}-{name}" for at, name in enumerate(names)]


def _fill(folder: Path, outcome: Outcome, names: Sequence[str]) -> None:
    """Write what is about several reports together."""
    reports = outcome.reports
    if is_wci_curve(reports):
        fill_curve(folder, wci_curve(outcome.found))
    if len(reports) > 1:
        there = [n for one, n in zip(outcome.found, names, strict=True) if not isinstance(one, str)]
        fill_index(folder, reports, there)


def _unlike_the_others(found: Sequence[Report | str], plan: Plan) -> tuple[list[int], Plan]:
    """The checkpoints whose WCI must be measured again to be of the same quantity as the others'.

    Returns:
        The positions of those measured with the Hessian's traces where another had to take the
        Gauss-Newton matrix's, and the plan that gives all the same. Of a network that is piecewise
        linear both are one.
    """

    def measured(report: Report | str) -> list[dict[str, Any]]:
        if isinstance(report, str):
            return []
        return [m.details for m in report.measurements if m.name == "wci" and m.status == "ok"]

    taken = [d["estimator"] for r in found for d in measured(r) if d["quantity"] == "gauss-newton"]
    index = plan.get(Wci)
    if index is None or not taken:
        return [], plan
    unlike = [
        at
        for at, report in enumerate(found)
        if any(details["estimator"] == "hessian" for details in measured(report))
    ]
    return unlike, plan.put(replace(index, estimator=taken[0]))
