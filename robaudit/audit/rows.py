"""Attacks on some of the examples at a time, for a gate that stops once its rules are decided."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from robaudit.attacks.diagnostics import Diagnostics
from robaudit.audit.certificates import contradiction
from robaudit.audit.context import Context
from robaudit.audit.doubts import better_attacks, fall, fallen, signs_of_masking
from robaudit.audit.failures import not_measured
from robaudit.audit.probe import PerExample
from robaudit.audit.probes import Clean
from robaudit.measures import find


class RowAttacks:
    """Attacks rows of one split; outcomes do not depend on which rows go together.

    Attributes:
        attacks: by name; ``clean`` needs no entry. The reference AutoAttack does not belong here:
            its verdicts depend on batches.
        notes: what the attacks warned of.
        seen: by attack, what it told of the gradients that it used, on all rows so far.
    """

    def __init__(self, context: Context, attacks: Mapping[str, PerExample]) -> None:
        self.context = context
        self.attacks = {"clean": Clean(), **attacks}
        self.notes: list[str] = []
        self.seen: dict[str, Diagnostics] = {}
        self._tried: dict[str, tuple[int, int]] = {}
        # Rows that each attack broke, and those that each proof certified.
        self._broke: dict[str, set[int]] = {}
        self._certified: dict[str, set[int]] = {}

    def described(self, name: str) -> dict[str, Any]:
        """The settings as an audit's measurement ``accuracy.NAME`` records them."""
        common = {} if _is_proof(name) else self.context.described
        return {**self.attacks[name].described(self.context.threat), **common}

    def stands(self, name: str, rows: Tensor) -> Tensor:
        """Which of the rows, none of which its chain broke before, withstand the attack.

        Of a proof: which are certified. What another rule's attack broke is not tried.

        Raises:
            NotMeasuredError: the attack or the proof cannot be run on this network.
        """
        if not _is_proof(name):
            robust = self._decided(name, rows)
            self._broke.setdefault(name, set()).update(rows[~robust].tolist())
            return robust
        broken = set().union(*self._broke.values())
        left = torch.tensor([row not in broken for row in rows.tolist()])
        certified = torch.zeros(len(rows), dtype=torch.bool)
        if bool(left.any()):
            certified[left] = self._decided(name, rows[left])
        self._certified.setdefault(name, set()).update(rows[certified].tolist())
        return certified

    def _decided(self, name: str, rows: Tensor) -> Tensor:
        with not_measured():
            found = self.attacks[name].withstood(self.context.part(rows))
        self.notes += found.notes
        if found.diagnostics is not None:
            before = self.seen.get(name)
            self.seen[name] = found.diagnostics if before is None else before + found.diagnostics
        tried, stood = self._tried.get(name, (0, 0))
        self._tried[name] = tried + len(rows), stood + int(found.robust.sum())
        return found.robust

    def doubts(self, name: str) -> list[str]:
        """The doubts of the share of examples that withstand an attack, as an audit states them.

        What a better attack leaves is a share of all examples: the shares that withstand it and
        each of the attacks before it, multiplied. The one doubt about a proof is that an attack
        broke what it certifies.
        """
        if _is_proof(name):
            certified = self._certified.get(name, set())
            index = self.context.splits[self.context.main].index
            both = {
                attack: index[sorted(certified & rows)].tolist()
                for attack, rows in self._broke.items()
            }
            text = contradiction(both)
            return [] if text is None else [text]
        lines = signs_of_masking(self.seen[name]) if name in self.seen else []
        before = self._left(name)
        for better in better_attacks(name):
            looked = self._tried.get("clean", (0, 0))[0]
            if better in self._tried and fall(before, self._left(better), looked):
                return [*lines, fallen(name, better, before - self._left(better))]
        return lines

    def _left(self, name: str) -> float:
        return math.prod(self._share(stage) for stage in find(f"accuracy.{name}").stages)

    def _share(self, name: str) -> float:
        tried, stood = self._tried.get(name, (0, 0))
        return stood / tried if tried else 1.0


def _is_proof(name: str) -> bool:
    return find(f"accuracy.{name}").basis == "proof"
