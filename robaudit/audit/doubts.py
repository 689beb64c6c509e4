"""Reasons not to believe a number, and the measurements that each of them is about."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from robaudit.schema import Measurement

# What rests on no attack of the audited network.
_UNATTACKED = frozenset(
    [
        *("accuracy.clean", "accuracy.corruptions", "accuracy.certified", "loss.clean"),
        *("flatness.clean_average", "flatness.clean_worst", "weights.frobenius"),
    ]
)
_ATTACKED = ("accuracy", "loss", "gap", "distance", "flatness", "sharpness")
_CURVED = ("wci", "trace", "hessian", "trh", "pacbayes")


@dataclass(frozen=True)
class Doubt:
    """A reason why numbers may overstate robustness or not be what their names say.

    Attributes:
        about: ``attacks`` is every accuracy, loss, gap, distance and flatness that rests on an
            attack; ``curvature`` every number that rests on second derivatives.
    """

    about: Literal["attacks", "curvature"]
    text: str

    def concerns(self, name: str) -> bool:
        """Whether a measurement of that name is to be doubted."""
        families = _ATTACKED if self.about == "attacks" else _CURVED
        return name not in _UNATTACKED and name.partition(".")[0] in families


@dataclass
class Findings:
    """What is odd about a network: warnings of the whole report, and doubts about its numbers."""

    warnings: list[str] = field(default_factory=list)
    doubts: list[Doubt] = field(default_factory=list)

    def add(self, found: Iterable[str | Doubt]) -> None:
        """Take in more, in their order."""
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
