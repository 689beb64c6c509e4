"""Doubts: reasons why a number may be wrong, and which measurements each of them concerns."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from robaudit.measures import find, known
from robaudit.schema import Measurement

if TYPE_CHECKING:
    from robaudit.attacks.diagnostics import Diagnostics

# Shares of the attacked examples; networks without masked gradients stay well below them.
_ZERO_GRADIENTS, _STUCK, _AHEAD, _BROKEN = 0.05, 0.02, 0.25, 0.02
# How far the accuracy under a better attack may be below or above.
_FALL, _RISE = 0.05, 0.01


@dataclass(frozen=True)
class Doubt:
    """A reason why numbers may overstate robustness or not be what their names say.

    Attributes:
        about: the basis of the measures that it concerns; see :class:`robaudit.measures.Measure`.
    """

    about: Literal["attacks", "curvature"]
    text: str

    def concerns(self, name: str) -> bool:
        """Whether a measurement of that name is to be doubted."""
        return find(name).basis == self.about


@dataclass
class Findings:
    """Anomalies of a network: warnings of the whole report, and doubts about its numbers."""

    warnings: list[str] = field(default_factory=list)
    doubts: list[Doubt] = field(default_factory=list)

    def add(self, found: Iterable[str | Doubt]) -> None:
        """Add findings, keeping their order."""
        for one in found:
            if isinstance(one, Doubt):
                self.doubts.append(one)
            else:
                self.warnings.append(one)

    def unplaced(self, names: Iterable[str]) -> list[str]:
        """The warnings, and the doubts that are about none of the measurements named."""
        names = list(names)
        left = [one.text for one in self.doubts if not any(map(one.concerns, names))]
        return [*self.warnings, *dict.fromkeys(left)]

    def about(self, name: str) -> list[str]:
        """The doubts about the measurement of that name."""
        return [doubt.text for doubt in self.doubts if doubt.concerns(name)]


def doubted(measurements: Iterable[Measurement], findings: Findings) -> list[Measurement]:
    """The measurements with the doubts that concern them, each once, before their own."""
    return [
        m.model_copy(update={"doubts": list(dict.fromkeys([*findings.about(m.name), *m.doubts]))})
        if m.status == "ok"
        else m
        for m in measurements
    ]


def signs_of_masking(found: Diagnostics) -> list[str]:
    """Doubts of an accuracy by its attack's diagnostics, each with what to do."""
    n = max(1, found.attacked)
    lines = []
    # If a search without gradients gets no further either, the network is constant in the ball.
    moves = found.blindly_ahead > 1 or found.black_box_only > 0
    broke = found.blindly_broken > max(1.0, _BROKEN * found.probed)
    if not moves:
        pass
    elif found.zero_gradient > _ZERO_GRADIENTS * n:
        lines.append(
            f"the gradient is zero on {found.zero_gradient} of {n} images where the search began: "
            "gradients are masked; trust the attacks without gradients, and attack a smoother "
            "version of the network"
        )
    elif found.stuck > max(1.0, _STUCK * n):
        lines.append(
            f"on {found.stuck} of {n} images no step raised the loss: gradients may be masked; "
            "attack without gradients (--attack square), or a smoother version of the network"
        )
    if broke or found.blindly_ahead > max(1.0, _AHEAD * found.probed):
        did = f"broke {found.blindly_broken}" if broke else f"got further on {found.blindly_ahead}"
        lines.append(
            f"a few blind patches {did} of {found.probed} images that it left standing: "
            "robustness is lower. Where more steps do not help, gradients lead nowhere, and an "
            "adaptive attack is needed"
        )
    if found.black_box_only:
        images = "1 image" if found.black_box_only == 1 else f"{found.black_box_only} images"
        lines.append(
            f"Square broke {images} without gradients that every attack with "
            "gradients had left: they are masked, and robustness is likely lower still; an "
            "adaptive attack is needed"
        )
    return lines


def falls(measurements: Sequence[Measurement]) -> list[Measurement]:
    """The measurements with doubts about attacks that find much less than another attack.

    Attacks on the same examples are compared with those that a gate runs before or after them: PGD,
    the fast tier and AutoAttack. CW is not compared: that the margin alone finds less does not
    mean that gradients are masked.
    """
    found = {
        (m.name.partition(".")[2], m.split, m.n): m.value
        for m in measurements
        if m.name.startswith("accuracy.") and m.value is not None
    }

    def fell(m: Measurement) -> list[str]:
        name = "pgd" if m.name == "loss.robust" else m.name.partition(".")[2]
        own = found.get((name, m.split, m.n))
        if m.name not in ("loss.robust", f"accuracy.{name}") or own is None:
            return []
        if find(m.name).basis == "proof":
            return []
        for better in better_attacks(name):
            value = found.get((better, m.split, m.n))
            if value is not None and fall(own, value, m.n or 0):
                return [fallen(name, better, own - value)]
        for simpler in find(f"accuracy.{name}").stages[1:-1]:
            value = found.get((simpler, m.split, m.n))
            if value is not None and _outdone(own, value, m.n or 0):
                return [fallen(name, simpler, own - value)]
        return []

    return [
        m.model_copy(update={"doubts": [*m.doubts, *fell(m)]}) if m.status == "ok" else m
        for m in measurements
    ]


def inherited(measurements: Sequence[Measurement]) -> list[Measurement]:
    """The measurements; the worst class's accuracy also has the doubts of the strongest attack.

    It counts what every attack of the audit left, and so rests on the one that left least.
    """

    def doubts_of(m: Measurement) -> list[str]:
        by = [f"accuracy.{name}" for name in m.settings.get("attacks", ())]
        found = [one for one in measurements if one.name in by and one.split == m.split]
        known = [one for one in found if one.value is not None]
        least = min(known, key=lambda one: one.value or 0.0, default=None)
        return list(dict.fromkeys([*m.doubts, *(least.doubts if least else ())]))

    return [
        m.model_copy(update={"doubts": doubts_of(m)})
        if m.name == "accuracy.worst_class" and m.status == "ok"
        else m
        for m in measurements
    ]


def better_attacks(name: str) -> list[str]:
    """The attacks that an example comes to after this one; see ``stages`` of a measure.

    >>> better_attacks("pgd")
    ['fast', 'autoattack']
    """
    rows = (row for row in known() if row.basis == "attacks")
    return [row.stages[-1] for row in rows if name in row.stages[1:-1]]


def fall(before: float, after: float, n: int) -> bool:
    """Whether a better attack leaves so much less that the other one cannot have worked.

    Three images of a few are chance: adversarially trained networks lose four points or so.
    """
    return before - after > _FALL + 1e-9 and (before - after) * n > 3.5


def _outdone(own: float, simpler: float, n: int) -> bool:
    """Whether a simpler attack leaves less by more than a point and two images."""
    return own - simpler > _RISE and (own - simpler) * n > 2.5


def fallen(name: str, other: str, by: float) -> str:
    """The doubt in words."""
    own, better = (find(f"accuracy.{one}").attack_in({}, sentence=True) for one in (name, other))
    return f"{better} leaves {100 * by:.1f} points less: {own} does not find what there is to find"
