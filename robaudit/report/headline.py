"""The audit in one line: robust accuracy, on what, and whether anything casts doubt on it."""

from __future__ import annotations

from dataclasses import dataclass

from robaudit.report.details import attacked
from robaudit.report.facts import short_threat
from robaudit.report.numbers import percent, shown
from robaudit.report.text import plain
from robaudit.report.words import assumptions, attack, doubts, label, not_measured, warnings
from robaudit.schema import Measurement, Report


@dataclass(frozen=True)
class Ends:
    """Robust accuracy of ``n`` images from both ends, as fractions.

    Attributes:
        low: certified.
        high: broken by no attack.
        open: neither certified nor broken.
        by: the attack that found ``high``.
    """

    low: float
    high: float
    open: float
    by: str
    n: int

    @property
    def exact(self) -> bool:
        """Whether every image is certified, broken or misclassified."""
        return self.open == 0


def ends(report: Report) -> Ends | None:
    """Both ends of robust accuracy; ``None`` where nothing was certified."""
    proven = report.get("accuracy.certified")
    if proven is None or proven.value is None or not proven.n:
        return None
    unbroken, left = (proven.details.get(name) for name in ("unbroken", "open"))
    if not isinstance(unbroken, int) or not isinstance(left, int):
        return None
    n = proven.n
    by = _by(report, unbroken, n) or plain(str(proven.details.get("searched_by")))
    return Ends(proven.value, unbroken / n, left / n, by, n)


def _by(report: Report, unbroken: int, n: int) -> str | None:
    """The attack that left so many of ``n``, or that it took several; ``None`` without attacks."""
    measured = attacked(report)
    if not measured:
        return None
    smallest = measured[0]
    assert smallest.value is not None
    alone = smallest.n == n and round(smallest.value * n) == unbroken
    return attack(smallest) if alone else "all attacks together"


def headline(report: Report) -> str:
    """What the audit found, in one line; ``""`` where no accuracy was measured."""
    found = _found(report)
    return f"{found}; {_certainty(report)}." if found else ""


def _found(report: Report) -> str:
    both = ends(report)
    where = f"at {short_threat(report.threat)} on"
    if both is not None:
        low, high = percent(both.low), percent(both.high)
        size = (
            f"exactly {low}" if both.exact else f"between {low} (certified) and {high} ({both.by})"
        )
        return f"Robust accuracy {size} {where} {both.n:,} images"
    if smallest := next(iter(attacked(report)), None):
        if smallest.name == "accuracy.transfer":
            return f"Accuracy {shown(smallest)} {where} {_images(smallest)} made elsewhere"
        size = f"at most {shown(smallest)} ({attack(smallest)})"
        return f"Robust accuracy {size} {where} {_images(smallest)}"
    for name in ("accuracy.union", "accuracy.corruptions", "accuracy.clean"):
        m = report.get(name)
        if m is not None and m.value is not None:
            return f"{label(m)} {shown(m)} on {_images(m)}"
    return ""


def _images(m: Measurement) -> str:
    return "images" if m.n is None else f"{m.n:,} images"


def _certainty(report: Report) -> str:
    """What casts doubt on the numbers, or that nothing does; then what else is to be read."""
    said = _counted(len(doubts(report)), "doubt")
    said += _counted(len(assumptions(report.subject)), "assumption")
    said = said or ["nothing casts doubt"]
    reference = report.get("accuracy.autoattack")
    if attacked(report) and ends(report) is None and (reference is None or reference.value is None):
        said.append("AutoAttack was not run" if _left_out(reference) else "AutoAttack failed")
    said += _counted(len(warnings(report)), "finding")
    lost = len(not_measured(report))
    said += [f"{lost} not measured"] if lost else []
    return ", ".join(said)


def _left_out(m: Measurement | None) -> bool:
    return m is None or m.status == "skipped"


def _counted(number: int, what: str) -> list[str]:
    return [f"{number} {what}{'s' if number > 1 else ''}"] if number else []
