"""Attacks on some of the examples at a time, for who decides as it goes."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

import torch
from torch import Tensor

from robaudit.attacks.diagnostics import Diagnostics
from robaudit.attacks.pgd import pgd
from robaudit.audit import accuracy, ensembles
from robaudit.audit.context import Context
from robaudit.audit.cross_check import diagnosed
from robaudit.audit.doubts import LADDER, fall, fallen, signs_of_masking
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


# The attacks that examples went through before, where they were run.
_BEFORE = {"fast": ("pgd",), "autoattack": ("pgd", "fast")}


class RowAttacks:
    """Attacks rows of one split; outcomes do not depend on which rows go together.

    Attributes:
        settings: by attack: ``pgd``, ``cw``, ``fast``, ``square``, ``autoattack``; ``clean`` has
            none. The reference AutoAttack does not belong here: its verdicts depend on batches.
        notes: what the attacks warned of.
        seen: by attack, what it told of the gradients that it used, on all rows so far.
    """

    def __init__(self, context: Context, settings: dict[str, Settings]) -> None:
        self.context = context
        self.settings = settings
        self.notes: list[str] = []
        self.seen: dict[str, Diagnostics] = {}
        self._tried: dict[str, tuple[int, int]] = {}

    def described(self, name: str) -> dict[str, Any]:
        """The settings as an audit's measurement ``accuracy.NAME`` records them."""
        settings = self.settings.get(name)
        drawn = self.context.described
        if isinstance(settings, Pgd):
            return {**accuracy.pgd_settings(settings, self.context.threat), **drawn}
        if isinstance(settings, AutoAttack):
            return {**ensembles.autoattack_settings(settings), **drawn}
        return {**({} if settings is None else asdict(settings)), **drawn}

    def stands(self, name: str, rows: Tensor) -> Tensor:
        """Which of the rows, all of which stood until now, the attack leaves standing.

        Raises:
            NotMeasuredError: the attack cannot be run on this network.
        """
        left = self._stands(name, rows)
        tried, stood = self._tried.get(name, (0, 0))
        self._tried[name] = tried + len(rows), stood + int(left.sum())
        return left

    def doubts(self, name: str) -> list[str]:
        """What speaks against the share of examples that withstand an attack, as an audit says it.

        What a better attack leaves is told of all examples: the shares that came through it and
        through the attacks before it, multiplied.
        """
        lines = signs_of_masking(self.seen[name]) if name in self.seen else []
        before = self._left(name)
        for better in LADDER.get(name, ()):
            looked = self._tried.get("clean", (0, 0))[0]
            if better in self._tried and fall(before, self._left(better), looked):
                return [*lines, fallen(name, better, before - self._left(better))]
        return lines

    def _left(self, name: str) -> float:
        return math.prod(self._share(one) for one in ("clean", *_BEFORE.get(name, ()), name))

    def _share(self, name: str) -> float:
        tried, stood = self._tried.get(name, (0, 0))
        return stood / tried if tried else 1.0

    def _stands(self, name: str, rows: Tensor) -> Tensor:
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
                return self._climbed(name, part, settings)
            part.engine = self.context.engine  # made once for all parts
            (found,) = _ENSEMBLES[name](part, settings)
        self.notes += found.warnings
        if "diagnostics" in found.details:
            self._see(name, Diagnostics(**found.details["diagnostics"]))
        return part.outcomes[f"{whole.split}.accuracy.{name}"]

    def _see(self, name: str, found: Diagnostics) -> None:
        self.seen[name] = self.seen[name] + found if name in self.seen else found

    def _climbed(self, name: str, part: Context, settings: Pgd) -> Tensor:
        """PGD that lets go of an example once it is broken; that alone is asked here."""
        examples = part.splits[part.main]
        label = "CW" if settings.loss == "margin" else "PGD"
        # Both run the network as it stands, so that the steps are those of an audit's PGD.
        judge, searcher = part.runner(), part.runner()
        with (
            part.watch(f"{label}-{settings.steps} on {len(examples)} {part.main} examples") as p,
            frozen(part.model),
        ):
            found = pgd(
                judge, examples.x, examples.y, part.threat, steps=settings.steps,
                restarts=settings.restarts, step_size=settings.step_over_eps * part.threat.eps,
                loss=settings.loss, mode="accuracy", searcher=searcher,
                seed=part.seed, index=examples.index, progress=p,
            )  # fmt: skip
        self._see(name, diagnosed(part, settings.loss, found))
        return found.robust
