"""Optimised slopes, then branch and bound, for one image; kept in pieces."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from robaudit.certified.branching import Branching, Frontier
from robaudit.certified.margins import Certifier
from robaudit.certified.regions import Region
from robaudit.certified.search import CEILING, Choices
from robaudit.types import Cache

# Branches split in the first leg; each leg has twice as many.
_LEG = 64


@dataclass(frozen=True)
class Single:
    """One image whose margins CROWN leaves open.

    Attributes:
        region: of the image.
        lower: ``(k - 1,)``, the bounds of its margins by CROWN.
        name: of the image in the cache.
    """

    certifier: Certifier
    region: Region
    label: int
    lower: Tensor
    name: str
    cache: Cache

    @cached_property
    def _computed(self) -> tuple[list[Branching], Tensor]:
        lower = self.lower.to(self.region.centre.device)
        return self.certifier.raised(self.region, self.label, lower)

    @cached_property
    def raised(self) -> Tensor:
        """Bounds ``(k - 1,)`` of the margins with optimised slopes."""
        return self.cache(f"alpha-{self.name}", lambda: {"margins": self._computed[1]})["margins"]

    def branched(self, budget: float, splits: int | None) -> tuple[float, int]:
        """The smallest margin's bound by branch and bound, and how many branches were split.

        The margins are taken one after the other and share the budget; the rest is left once one
        stays open.
        """
        raised = self.raised.to(self.region.centre.device)
        smallest = min([math.inf, *raised[raised > 0].tolist()])
        opened, done, seconds = sorted(raised[raised <= 0].tolist()), 0, 0.0
        branchings = sorted(self._computed[0], key=lambda branching: float(branching.lower))
        for place, branching in enumerate(branchings):
            left = None if splits is None else splits - done
            frontier = self._grown(branching, place, budget - seconds, left)
            done, seconds = done + frontier.splits, seconds + frontier.seconds
            # A branch's bound holds where the margin is at most CEILING.
            smallest = min([smallest, frontier.closed, CEILING, *frontier.lower.tolist()])
            if len(frontier.form):
                return min([smallest, *opened[place + 1 :]]), done
        return smallest, done

    def _grown(
        self, branching: Branching, place: int, budget: float, splits: int | None
    ) -> Frontier:
        """The branches of one margin at the end of the budget.

        The work is kept leg by leg: of a finished leg the assumed signs, from which the next goes
        on with the slopes of the beginning.
        """
        frontier, leg = branching.opened(), 0
        while len(frontier.form) and not frontier.stuck and frontier.seconds < budget:
            most = _LEG * 2**leg
            if splits is not None:
                most = min(most, splits - frontier.splits)
            if most <= 0:
                break
            name = f"branch-{self.name}-{place}-{leg}"
            kept = self.cache(name, _leg(branching, frontier, most, budget))
            frontier = branching.again(_frontier(kept, self.region.centre.device))
            leg += 1
        return frontier


def _leg(
    branching: Branching, frontier: Frontier, most: int, budget: float
) -> Callable[[], dict[str, Tensor]]:
    def grown() -> dict[str, Tensor]:
        after = branching.grown(frontier, most, budget - frontier.seconds)
        counts = [after.splits, after.seconds, after.closed, float(after.stuck)]
        signs = {f"signs.{k}": part for k, part in after.choices.signs.items()}
        return {
            "form": after.form,
            "lower": after.lower,
            "counts": torch.tensor(counts, dtype=torch.float64),
            **signs,
        }

    return grown


def _frontier(kept: dict[str, Tensor], device: torch.device) -> Frontier:
    splits, seconds, closed, stuck = kept["counts"].tolist()
    signs = {
        int(name.removeprefix("signs.")): part.to(device)
        for name, part in kept.items()
        if name.startswith("signs.")
    }
    return Frontier(
        form=kept["form"].to(device),
        lower=kept["lower"].to(device),
        choices=Choices({}, signs, {}),
        splits=int(splits),
        seconds=seconds,
        closed=closed,
        stuck=bool(stuck),
    )
