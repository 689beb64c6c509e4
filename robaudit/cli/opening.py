"""Opens the checkpoints of one command: what they are is asked once, of the same images always."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from robaudit.cli.messages import say
from robaudit.cli.options import Settings
from robaudit.errors import RobauditError, UsageError

if TYPE_CHECKING:
    from robaudit.checkpoints import Classifier
    from robaudit.checkpoints.answers import Answers
    from robaudit.types import Examples, ThreatModel


@dataclass(frozen=True)
class Opening:
    """How a command opens its checkpoints.

    Attributes:
        examples: of the split's first 1024, whatever is audited.
        exact: a normalisation that does not matter to robust accuracy is not good enough.
    """

    settings: Settings
    examples: Examples
    threat: ThreatModel | None
    answers: Answers
    exact: bool = False

    @classmethod
    def of(
        cls,
        checkpoints: Sequence[str],
        examples: Examples,
        threat: ThreatModel | None,
        settings: Settings,
        *,
        exact: bool = False,
    ) -> Opening:
        """For these checkpoints, whose audited ``examples`` are at hand."""
        from robaudit.checkpoints.answers import Answers
        from robaudit.data import deciding_examples

        deciding = deciding_examples(
            settings.data, split=settings.split.value, data_dir=settings.data_dir,
            download=settings.download, audited=examples,
        )  # fmt: skip
        return cls(settings, deciding, threat, Answers(checkpoints), exact)

    def open(self, checkpoint: str, *, quiet: bool = False) -> Classifier:
        """The checkpoint as the options say; what was found out about it is said on stderr."""
        from robaudit.checkpoints import load
        from robaudit.cli.bars import progress_bar

        settings = self.settings
        with (
            progress_bar(Path(checkpoint).stem, settings.quiet) as watch,
            watch("finding out what it is") as progress,
        ):
            model = load(
                checkpoint,
                arch=settings.arch,
                normalize=settings.normalize,
                device=settings.device,
                examples=self.examples,
                member=settings.member,
                weights=settings.weights,
                sha256=settings.sha256,
                trust_pickle=settings.trust_pickle,
                model_dir=settings.model_dir,
                download=settings.download,
                threat=self.threat,
                guess=settings.guess,
                exact=self.exact,
                answers=self.answers,
                progress=progress,
            )
        if not settings.quiet and not quiet:
            _tell(checkpoint, model)
        return model

    def other(self, checkpoint: str, arch: str | None, normalize: str | None) -> Classifier:
        """A checkpoint beside the audited ones, with options of its own."""
        from robaudit.checkpoints.answers import Answers

        own = replace(
            self.settings, arch=arch, normalize=normalize, member=None, weights=None, sha256=None,
            trust_pickle=False,
        )  # fmt: skip
        return replace(self, settings=own, answers=Answers([checkpoint])).open(checkpoint)

    def check_one_network(self, checkpoints: Sequence[str]) -> None:
        """Refuse a curve through checkpoints that are not of the same network.

        Those that cannot be opened are left for their own turn.

        Raises:
            UsageError: their networks or normalisations differ.
        """
        found: dict[tuple[str, str], str] = {}
        for checkpoint in checkpoints:
            try:
                origin = self.open(checkpoint, quiet=True).origin
            except RobauditError:
                continue
            found.setdefault((origin.architecture, origin.normalization), checkpoint)
        if len(found) < 2:
            return
        one, other = list(found.items())[:2]
        raise UsageError(
            f"there is no curve through different networks: {one[1]} is {one[0][0]} with "
            f"normalisation {one[0][1]}, {other[1]} is {other[0][0]} with {other[0][1]}",
            "Say what they all are with --arch and --normalize, or measure them one by one.",
        )


def _tell(checkpoint: str, model: Classifier) -> None:
    origin = model.origin
    network = f"identified by {origin.identified_by}"
    if origin.architecture_known == "assumed":
        network = "assumed"
    by = "assumed" if origin.normalization_known == "assumed" else f"by {origin.normalized_by}"
    say(
        f"{checkpoint}: {origin.architecture}, {network}; normalisation {origin.normalization}, "
        f"{by}" + (f"; {origin.harmless}" if origin.harmless else "")
    )
