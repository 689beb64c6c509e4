"""What the tables need of a report: its numbers, without settings' and layers' details."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from robaudit.report.words import attack, doubts, label
from robaudit.schema import Report


@dataclass(frozen=True)
class Number:
    """One measurement, short."""

    name: str
    split: str
    value: float | None
    low: float | None
    high: float | None
    standard_error: float | None
    n: int | None
    label: str
    reason: str | None = None
    doubts: Sequence[str] = ()


@dataclass(frozen=True)
class Result:
    """A finished job's numbers; plain values, as the journal has them.

    Attributes:
        split: the audited one.
        assumed: whether the network or its normalisation is a guess.
        warnings: doubts, and warnings of the model or the data as a whole and of the accuracies.
    """

    architecture: str
    sha256: str | None
    parameters: int
    split: str
    n: int
    numbers: list[dict[str, Any]]
    warnings: list[str]
    assumed: bool = False

    @cached_property
    def table(self) -> dict[tuple[str, str], Number]:
        """The numbers by name and split."""
        found = (Number(**number) for number in self.numbers)
        return {(number.name, number.split): number for number in found}

    def get(self, name: str, split: str | None = None) -> Number | None:
        """The number of that name, on the audited split or, for gaps, between both."""
        where = split or ("gap" if name.startswith("gap.") else self.split)
        return self.table.get((name, where))

    def value(self, name: str) -> float | None:
        number = self.get(name)
        return None if number is None else number.value

    @property
    def failed(self) -> list[Number]:
        """Measurements that could not be made."""
        return [number for number in self.table.values() if number.reason is not None]


def result_of(report: Report) -> Result:
    """A report's numbers."""
    numbers = []
    for m in report.measurements:
        words = attack(m) if m.name.startswith("accuracy.") else label(m)
        low, high = (m.interval.low, m.interval.high) if m.interval else (None, None)
        numbers.append(
            {
                "name": m.name, "split": m.split, "value": m.value, "low": low, "high": high,
                "standard_error": m.standard_error, "n": m.n, "label": words,
                "reason": m.reason if m.status == "failed" else None, "doubts": m.doubts,
            }
        )  # fmt: skip
    own = [
        f"{attack(m)}: {text}"
        for m in report.measurements
        if m.name.startswith("accuracy.")
        for text in m.warnings
    ]
    return Result(
        architecture=report.subject.architecture,
        sha256=report.subject.sha256,
        parameters=report.subject.parameters,
        split=report.data.split,
        n=report.data.n,
        numbers=numbers,
        assumed=report.subject.assumed,
        warnings=list(dict.fromkeys([*doubts(report), *report.warnings, *own])),
    )
