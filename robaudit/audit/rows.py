"""Attacks on some of the examples at a time, for who decides as it goes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

import torch
from torch import Tensor

from robaudit.attacks.pgd import pgd_with
from robaudit.audit import accuracy, ensembles
from robaudit.audit.context import Context
from robaudit.audit.failures import not_measured
from robaudit.audit.plan import AutoAttack, Fast, Pgd, Square
from robaudit.engine import frozen
from robaudit.schema import Measurement

Settings = Pgd | Fast | Square | AutoAttack

_ENSEMBLES: dict[str, Callable[..., list[Measurement]]] = {
    "fast": ensembles.fast,
    "square": ensembles.square,
    "autoattack": ensembles.auto,
}


class RowAttacks:
    """Attacks rows of one split; outcomes do not depend on which rows go together.

    Attributes:
        settings: by attack: ``pgd``, ``cw``, ``fast``, ``square``, ``autoattack``; ``clean`` has
            none. The reference AutoAttack does not belong here: its verdicts depend on batches.
        notes: what the attacks warned of.
    """

    def __init__(self, context: Context, settings: dict[str, Settings]) -> None:
        self.context = context
        self.settings = settings
        self.notes: list[str] = []

    def described(self, name: str) -> dict[str, Any]:
        """The settings as an audit's measurement ``accuracy.NAME`` records them."""
        settings = self.settings.get(name)
        if isinstance(settings, Pgd):
            return accuracy.pgd_settings(settings, self.context.threat)
        if isinstance(settings, AutoAttack):
            return ensembles.autoattack_settings(settings)
        return {} if settings is None else asdict(settings)

    def stands(self, name: str, rows: Tensor) -> Tensor:
        """Which of the rows, all of which stood until now, the attack leaves standing.

        Raises:
            NotMeasuredError: the attack cannot be run on this network.
        """
        whole = self.context.splits[self.context.main]
        examples = whole.taken(rows)
        clean = f"{whole.split}.accuracy.clean"
        part = replace(
            self.context, splits={whole.split: examples}, broken={}, _made={},
            outcomes={clean: torch.ones(len(rows), dtype=torch.bool)},
        )  # fmt: skip
        with not_measured():
            if name == "clean":
                accuracy.clean(part)
                return part.outcomes[clean]
            settings = self.settings[name]
            if isinstance(settings, Pgd):
                return self._climbed(part, settings)
            part.engine = self.context.engine  # made once for all parts
            (found,) = _ENSEMBLES[name](part, settings)
        self.notes += found.warnings
        return part.outcomes[f"{whole.split}.accuracy.{name}"]

    def _climbed(self, part: Context, settings: Pgd) -> Tensor:
        """PGD that lets go of an example once it is broken; that alone is asked here."""
        examples = part.splits[part.main]
        label = "CW" if settings.loss == "margin" else "PGD"
        # Both run the network as it stands, so that the steps are those of an audit's PGD.
        judge, searcher = part.runner(), part.runner()
        with (
            part.watch(f"{label}-{settings.steps} on {len(examples)} {part.main} examples") as p,
            frozen(part.model),
        ):
            return pgd_with(
                judge, examples.x, examples.y, part.threat, steps=settings.steps,
                restarts=settings.restarts, step_size=settings.step_over_eps * part.threat.eps,
                loss=settings.loss, searcher=searcher, seed=part.seed, index=examples.index,
                progress=p,
            ).robust  # fmt: skip
