"""``robaudit corruptions``: accuracy on CIFAR-10-C, CIFAR-100-C, ImageNet-C and the like."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from robaudit.audit.plan import Plan
from robaudit.audit.probes import Corruptions
from robaudit.cli.measure import measure
from robaudit.cli.options import Checkpoints, Settings, with_settings
from robaudit.errors import UsageError
from robaudit.request import Folder, Spec


class CorruptionOptions(Spec):
    """Which corruptions, and what they are compared with."""

    corruption: str | None = Field(
        default=None,
        description="Only these, separated by commas: fog,snow. [default: the fifteen that the "
        "mean is over]",
    )
    severity: str | None = Field(
        default=None,
        description="Only these severities, separated by commas. [default: 1,2,3,4,5]",
    )
    clean_data: str | None = Field(
        default=None,
        description="The clean images, as --data takes them, for clean accuracy beside. [default: "
        "those of cifar10-c, cifar100-c and imagenet-c where they are at hand]",
    )
    reference: Folder | None = Field(
        default=None,
        description="Errors of a reference model for the mean corruption error: a CSV file with "
        "columns corruption and error, perhaps also severity, or a report of this command. "
        "[default: AlexNet's for ImageNet-C]",
    )

    @property
    def names(self) -> tuple[str, ...]:
        """The corruptions; empty for the fifteen."""
        return _parts(self.corruption, "corruption")

    @property
    def levels(self) -> tuple[int, ...]:
        """The severities; empty for all."""
        parts = _parts(self.severity, "severity")
        if not all(part.isdigit() for part in parts):
            raise UsageError(
                f"severity {self.severity}: not a list of numbers from 1 to 5",
                "Write it as --severity 1,3,5.",
                field="severity",
            )
        return tuple(map(int, parts))


@with_settings(
    omit=frozenset({"gap", "train_data", "norm", "eps", "force_eps", "straight_through", "split"})
)
def corruptions(
    checkpoints: Checkpoints, settings: Settings, how: Annotated[CorruptionOptions, None]
) -> None:
    """Accuracy under common corruptions: noise, blur, weather, compression.

    [bold]robaudit corruptions ckpt.pt --data cifar10-c --data-dir ~/data --out report[/bold]

    [bold]robaudit corruptions ckpt.pt --data corruptions:DIR --severity 5 --corruption fog[/bold]

    Reads CIFAR-10-C and CIFAR-100-C (CORRUPTION.npy and labels.npy), ImageNet-C
    (CORRUPTION/SEVERITY/CLASS/*.JPEG) and other folders of these forms, and refuses one that is not
    whole. Gives accuracy for each corruption and severity, their mean, and the mean corruption
    error where reference errors are known. All versions of an image count as one in the intervals.

    --n takes the first n images at every severity; without it all are measured. With --out also
    corruptions.csv, corruptions.svg and .png. With --state an interrupted run goes on.
    """
    from robaudit.data import open_corrupted
    from robaudit.report.corruptions import read_reference
    from robaudit.session.which_data import with_clean, with_data

    named = with_data(settings, checkpoints)
    reference = None if how.reference is None else read_reference(how.reference)
    folder = "" if named.data_dir is None else str(named.data_dir)
    probe = Corruptions(named.data, folder, how.names, how.levels, reference)
    # Whatever is wrong with the folder is said before any checkpoint is opened.
    count = open_corrupted(named.data, named.data_dir, how.names, how.levels).count
    measure(checkpoints, Plan(n=count, probes=(probe,)), with_clean(named, how.clean_data))


def _parts(text: str | None, field: str) -> tuple[str, ...]:
    if text is None:
        return ()
    parts = tuple(part.strip() for part in text.split(",") if part.strip())
    if not parts:
        raise UsageError(f"{field} names none", "Name one, or leave it out.", field=field)
    return parts
