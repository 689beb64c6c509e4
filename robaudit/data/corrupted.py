"""The interface of corrupted images, and the choice of corruptions and severities."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from torch import Tensor

from robaudit.datasets import CORRUPTIONS, EXTRA_CORRUPTIONS, SEVERITIES
from robaudit.errors import DataError, UsageError, did_you_mean

_MOST_NAMED = 8


@dataclass(frozen=True)
class Corrupted:
    """Images of a test set under corruptions.

    Attributes:
        name: of the data set.
        count: images; each corruption has all of them at each severity, in one order.
        corruptions: those chosen, in the usual order.
        severities: those chosen, ascending.
        shape: of an image, ``(c, h, w)``.
        classes: of the data set; ``None`` if unknown.
        labels: positions to labels, int64 ``(m,)``.
        images: a corruption, a severity and positions to images, uint8 ``(m, c, h, w)``.
        unknown: what else is in the folder.
    """

    name: str
    count: int
    corruptions: tuple[str, ...]
    severities: tuple[int, ...]
    shape: tuple[int, ...]
    classes: int | None
    labels: Callable[[Sequence[int]], Tensor]
    images: Callable[[str, int, Sequence[int]], Tensor]
    unknown: tuple[str, ...] = ()


def chosen(
    corruptions: Sequence[str], severities: Sequence[int]
) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Corruptions in the usual order and severities in ascending order, each once.

    Raises:
        UsageError: a severity that is none.

    >>> chosen(["fog", "snow", "fog"], [])
    (('snow', 'fog'), (1, 2, 3, 4, 5))
    """
    unknown = sorted(set(severities) - set(SEVERITIES))
    if unknown:
        raise UsageError(
            f"severity {unknown[0]}: severities are 1 to {len(SEVERITIES)}", field="severity"
        )
    usual = (*CORRUPTIONS, *EXTRA_CORRUPTIONS)
    known = [name for name in usual if name in corruptions]
    known += sorted(set(corruptions) - set(usual))
    return tuple(known) or CORRUPTIONS, tuple(sorted(set(severities))) or SEVERITIES


def check_there(where: str, wanted: Sequence[str], there: Collection[str], suffix: str) -> None:
    """Refuse a folder that lacks some of the corruptions.

    Args:
        suffix: of a corruption's file.

    Raises:
        DataError: names those that are missing.
    """
    missing = [name for name in wanted if name not in there]
    if not missing:
        return
    names = some_of([name + suffix for name in missing])
    if set(missing) <= {*CORRUPTIONS, *EXTRA_CORRUPTIONS}:
        raise DataError(
            f"{where} lacks {len(missing)} of {len(wanted)} corruptions: {names}",
            "Complete it, or name those to measure: --corruption fog,snow (a part of the mean).",
        )
    raise DataError(
        f"{where} has no corruption {names}{did_you_mean(missing[0], there)}",
        f"There are {some_of(sorted(there))}." if there else "There are none in it.",
    )


def unknown_of(there: Collection[str], wanted: Collection[str]) -> tuple[str, ...]:
    """Those in a folder that are neither wanted nor known, in order."""
    return tuple(sorted(set(there) - {*CORRUPTIONS, *EXTRA_CORRUPTIONS, *wanted}))


def some_of(names: Sequence[str]) -> str:
    """The names, or the first of them and how many there are.

    >>> some_of(["fog", "snow"])
    'fog, snow'
    """
    said = ", ".join(names[:_MOST_NAMED])
    return f"{said}, ... ({len(names)} in all)" if len(names) > _MOST_NAMED else said
