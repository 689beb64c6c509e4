"""What measures of sharpness share: the images that they are measured on."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from robaudit.audit.names import authors
from robaudit.audit.numbers import estimate
from robaudit.schema import Measurement

if TYPE_CHECKING:
    from torch import Tensor

    from robaudit.audit.context import Context
    from robaudit.audit.probes.pgd import Pgd
    from robaudit.types import Progress


def at_adversarial_and_clean(
    context: Context,
    pgd: Pgd,
    names: tuple[str, str],
    measured: Callable[[Tensor, Progress | None], Any],
    *,
    settings: dict[str, Any],
    details: Callable[[Any], dict[str, Any]] = lambda _: {},
    unit: str = "",
    degrees: Callable[[Any], int] | None = None,
) -> list[Measurement]:
    """Two measurements of the audited split: at PGD examples, held fixed, and at clean images.

    Args:
        names: of the two.
        measured: of images ``(n, c, h, w)`` and a progress display; a result with ``value``,
            ``standard_error`` and, where there are any, ``per_example`` and ``notes``.
        settings, unit: of both measurements.
        details: of a measurement, from its result.
        degrees: of its standard error, where the interval is to be Student's t.
    """
    split, own = context.main, authors(context.model)
    images = (context.adversarial(split, pgd).x, context.splits[split].x)
    found = []
    for name, x, kind in zip(names, images, ("adversarial", "clean"), strict=True):
        label = name.partition(".")[2].removeprefix("clean_").replace("_", " ")
        with context.watch(f"{label} on {len(x)} {kind} {split} examples") as progress:
            made = measured(x, progress)
        if hasattr(made, "per_example"):
            context.keep(split, name, made.per_example)
        notes = [own(note) for note in getattr(made, "notes", ())]
        found.append(
            estimate(
                name,
                split,
                made.value,
                made.standard_error,
                degrees=None if degrees is None else degrees(made),
                n=len(x),
                unit=unit,
                settings=settings,
                details=details(made),
                warnings=notes,
            )
        )
    return found
