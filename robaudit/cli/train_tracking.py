"""The audit's measures of a network in training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, get_args

from robaudit.errors import UsageError, did_you_mean

if TYPE_CHECKING:
    from torch import nn

    from robaudit.types import Examples, ThreatModel

Measure = Literal["robust", "wci", "flatness"]


def parse_track(text: str) -> tuple[Measure, ...]:
    """``"wci,robust"`` as its parts.

    Raises:
        UsageError: a part is no measure.
    """
    known = get_args(Measure)
    found = tuple(part.strip() for part in text.split(",") if part.strip())
    for part in found:
        if part not in known:
            raise UsageError(
                f"--track {part}: no such measure{did_you_mean(part, list(known))}",
                f"Measures: {', '.join(known)}.",
            )
    return tuple(measure for measure in known if measure in found)


def tracked(
    model: nn.Module,
    splits: Sequence[Examples],
    threat: ThreatModel,
    measures: Sequence[Measure],
    seed: int,
) -> dict[str, float]:
    """The measures by their usual names and the split, as in ``accuracy.pgd.test``.

    ``robust``: clean and PGD-20 accuracy and the robust loss. ``wci``: on PGD-10 examples.
    ``flatness``: average (5 perturbations) and worst case (1 restart), both with PGD-10.
    """
    from robaudit.attacks import pgd
    from robaudit.curvature import wci
    from robaudit.flatness import average, worst

    found: dict[str, float] = {}
    for part in splits:
        x, y, index, split = part.x, part.y, part.index, part.split
        if "robust" in measures:
            met = pgd(model, x, y, threat, steps=20, seed=seed, index=index)
            found[f"accuracy.clean.{split}"] = float(met.correct.double().mean())
            found[f"accuracy.pgd.{split}"] = float(met.robust.double().mean())
            found[f"loss.robust.{split}"] = float(met.loss.double().mean())
        if "wci" in measures or "flatness" in measures:
            met = pgd(model, x, y, threat, steps=10, seed=seed, index=index)
            if "wci" in measures:
                found[f"wci.{split}"] = wci(model, met.x, y, seed=seed, index=index).value
            if "flatness" in measures:
                how: Any = {"steps": 10, "seed": seed, "index": index, "reference": met}
                random = average(model, x, y, threat, perturbations=5, **how)
                found[f"flatness.average.{split}"] = random.value
                found[f"flatness.worst.{split}"] = worst(
                    model, x, y, threat, restarts=1, **how
                ).value
    return found
