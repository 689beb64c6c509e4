"""Examples, threat model and opened checkpoints of one request."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import torch

import robaudit
from robaudit import audit as auditing
from robaudit import data
from robaudit.audit import Audit, Plan
from robaudit.audit.adversarial_file import Adversarial
from robaudit.audit.journal import open_journal, threads_kept, weights_digest
from robaudit.checkpoints import Classifier, load
from robaudit.checkpoints.answers import Answers
from robaudit.checkpoints.sources import zoo_threat
from robaudit.datasets import CORRUPTED_FOLDER, is_corrupted
from robaudit.display import Display, Whole
from robaudit.errors import DataError, RobauditError, UsageError
from robaudit.request import CheckpointSpec, DataSpec, Request
from robaudit.session.which_data import with_data
from robaudit.types import Cache, Examples, Norm, ThreatModel, no_cache


@dataclass(frozen=True)
class Session:
    """Checkpoints that are opened in the same way, for the same examples and threat model.

    Attributes:
        request: with the data named.
        examples: those audited.
        train: of the training split, where the request asks for generalisation gaps.
        threat: ``None`` where clean accuracy alone is measured.
        answers: what has been found out about the checkpoints.
        exact: a normalisation that does not matter to robust accuracy is not good enough.
    """

    request: Request
    examples: Examples
    train: Examples | None
    threat: ThreatModel | None
    answers: Answers
    exact: bool = False
    display: Display = field(default_factory=Display)

    @classmethod
    def begin(
        cls,
        sources: Sequence[str],
        request: Request,
        *,
        at_most: int | None,
        clean_alone: bool = False,
        corrupted: bool = False,
        exact: bool = False,
        display: Display | None = None,
        answers: Answers | None = None,
    ) -> Session:
        """Load the examples of a request.

        Args:
            at_most: examples to load where the request does not say how many.
            clean_alone: nothing is attacked, so that a threat model is not needed.
            corrupted: nothing is measured that needs clean images.
            answers: of an earlier session with the same checkpoints.

        Raises:
            UsageError, DataError: the examples or the threat model cannot be had.
            CheckpointError: the first checkpoint has to say what the data are, and is unreadable.
        """
        display = display or Display()
        request = with_data(request, sources, display)
        threat = None if clean_alone and request.eps is None else threat_of(request, sources)
        examples, train = data_splits(request, at_most, display, corrupted=corrupted)
        known = answers or Answers(sources)
        return cls(request, examples, train, threat, known, exact, display)

    @cached_property
    def deciding(self) -> Examples:
        """Those that tell what a checkpoint is: of the split's first 1024, whatever is audited."""
        asked = self.request
        return data.deciding_examples(
            asked.data,
            split=asked.split,
            data_dir=asked.data_dir,
            download=asked.download,
            audited=self.examples,
        )

    def open(self, source: str, *, quiet: bool = False, whole: Whole | None = None) -> Classifier:
        """The checkpoint as a classifier.

        Args:
            quiet: the display is not told what was found out about it.
            whole: the run that it is a part of.

        Raises:
            CheckpointError, UsageError: see :func:`robaudit.checkpoints.load`.
        """
        asked = self.request
        with (
            self.display.bars(Path(source).stem, whole) as watch,
            watch("finding out what it is") as progress,
        ):
            model = load(
                source,
                device=asked.device,
                examples=self.deciding,
                download=asked.download,
                threat=self.threat,
                exact=self.exact,
                answers=self.answers,
                progress=progress,
                **asked.only(CheckpointSpec),
            )
        if not quiet:
            self.display.note(f"{source}: {found_line(model)}")
        return model

    def other(self, source: str, arch: str | None, normalize: str | None) -> Classifier:
        """A checkpoint beside the audited ones, opened with other settings."""
        usual = CheckpointSpec(model_dir=self.request.model_dir, guess=self.request.guess)
        named = {"arch": arch, "normalize": normalize}
        own = self.request.changed(**{**usual.only(CheckpointSpec), **named})
        return replace(self, request=own, answers=Answers([source])).open(source)

    def check_one_network(self, sources: Sequence[str]) -> None:
        """Refuse a curve through checkpoints that are not of the same network.

        Those that cannot be opened are passed over here.

        Raises:
            UsageError: their networks or normalisations differ.
        """
        found: dict[tuple[str, str], str] = {}
        for source in sources:
            try:
                origin = self.open(source, quiet=True).origin
            except RobauditError:
                continue
            found.setdefault((origin.architecture, origin.normalization), source)
        if len(found) < 2:
            return
        one, other = list(found.items())[:2]
        raise UsageError(
            f"there is no curve through different networks: {one[1]} is {one[0][0]} with "
            f"normalisation {one[0][1]}, {other[1]} is {other[0][0]} with {other[0][1]}",
            "Say what they all are with --arch and --normalize, or measure them one by one.",
        )

    def audit(
        self,
        model: Classifier,
        plan: Plan,
        name: str,
        *,
        cache: Cache = no_cache,
        surrogate: Classifier | None = None,
        replayed: Adversarial | None = None,
        whole: Whole | None = None,
    ) -> Audit:
        """Audit an opened checkpoint by a plan; see :func:`robaudit.audit.audit`.

        Args:
            name: that its progress bars show.
            whole: the run that it is a part of.
        """
        whole = whole or Whole()
        asked = self.request
        with self.display.bars(name, whole) as watch:
            return auditing.audit(
                model,
                self.examples,
                self.threat,
                plan,
                train=self.train,
                seed=asked.seed,
                batch_size=asked.batch_size,
                precision=asked.precision,
                surrogate=surrogate,
                replayed=replayed,
                watch=watch,
                progress=whole.progress,
                cache=cache,
                samples=asked.samples,
                straight_through=asked.straight_through,
                data_dir=asked.data_dir,
            )

    def journal(self, folder: Path, model: Classifier) -> Cache:
        """The cache in ``folder`` that keeps the finished pieces of this audit of ``model``.

        Raises:
            UsageError: the folder holds pieces of another audit.
        """
        # The pieces of one run are rounded alike: it goes on with the threads that it began with.
        threads = threads_kept(folder) or torch.get_num_threads()
        torch.set_num_threads(threads)
        threat = self.threat
        key = {
            "threads": threads,
            "robaudit": robaudit.__version__,
            "weights": weights_digest(model),
            "architecture": model.origin.architecture,
            "normalization": model.origin.normalization,
            "data": self.examples.sha256,
            "threat": None if threat is None else {"norm": threat.norm, "eps": threat.eps},
            "seed": self.request.seed,
        }
        return open_journal(folder, key).piece


def data_splits(
    asked: Request,
    at_most: int | None,
    display: Display | None = None,
    *,
    corrupted: bool = False,
) -> tuple[Examples, Examples | None]:
    """The examples of a request, and those of the training split where gaps are asked for.

    Args:
        at_most: how many where the request does not say.
        corrupted: data with corrupted images alone may be asked for.

    Raises:
        UsageError, DataError: they cannot be had.
    """
    display = display or Display()
    if not corrupted:
        _check_clean(asked)

    def without(error: DataError) -> None:
        display.note(f"no generalisation gaps: {error.message}", "Give --train-data, or --no-gap.")

    # Only files take long to read; a bar for anything else would be gone before it is seen.
    shown = display if asked.data.startswith(("imagefolder:", CORRUPTED_FOLDER)) else Display()
    with shown.bars(asked.data) as watch, watch("reading images") as progress:
        return data.load_splits(
            asked.data,
            asked.split,
            gap=asked.gap,
            train_data=asked.train_data,
            n=asked.n,
            at_most=at_most,
            sample_seed=asked.seed if asked.sample else None,
            data_dir=asked.data_dir,
            download=asked.download,
            without=without,
            progress=progress,
        )


def threat_of(
    asked: Request, sources: Sequence[str] = (), *, advice: str = "Give one: --eps 8/255."
) -> ThreatModel:
    """The threat model asked for, else a zoo entry's own, else the usual one for the data set.

    Args:
        asked: a request whose data are named.
        advice: what to do where no radius is known.

    Raises:
        UsageError: there is no usual radius, or the checkpoints' own threat models differ.
    """
    own = {source: stated for source in sources if (stated := zoo_threat(source)) is not None}
    norm: Norm = asked.norm or "linf"
    if asked.norm is None and own:
        norms = {stated[1] for stated in own.values()}
        if len(norms) > 1:
            raise UsageError(
                f"the checkpoints' own threat models differ: {', '.join(own)}",
                "Say which one holds for all: --norm linf --eps 8/255.",
            )
        norm = norms.pop()
    if asked.eps is not None:
        return ThreatModel(norm, asked.eps, asked.force_eps)
    for name in (asked.data, *(dataset for dataset, _ in own.values())):
        if (usual := data.default_threat(name, norm)) is not None:
            return usual
    _check_clean(asked)
    # A name that is misspelt has no usual radius either: say that, not this.
    _one_example(asked)
    raise UsageError(f"no usual {norm} radius is known for --data {asked.data}", advice)


def _check_clean(asked: DataSpec) -> None:
    if is_corrupted(asked.data):
        raise UsageError(
            f"{asked.data} has corrupted images alone, which only robaudit corruptions measures on",
            "Name the clean set: corrupted images are measured beside it (--also corruptions, or a "
            "gate's rule), with both in --data-dir.",
        )


def _one_example(asked: DataSpec) -> None:
    data.load_examples(
        asked.data, split=asked.split, n=1, data_dir=asked.data_dir, download=asked.download
    )


def found_line(model: Classifier) -> str:
    """What a checkpoint was found to be, in a line."""
    origin = model.origin
    network = f"identified by {origin.identified_by}"
    if origin.architecture_known == "assumed":
        network = "assumed"
    by = "assumed" if origin.normalization_known == "assumed" else f"by {origin.normalized_by}"
    harmless = f"; {origin.harmless}" if origin.harmless else ""
    return f"{origin.architecture}, {network}; normalisation {origin.normalization}, {by}{harmless}"
