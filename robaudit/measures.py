"""The registry of measures: what each number is called, can be, and means. No torch here.

Every view of a report, the gate, the batch tables and the reference pages read it; a measure is
described once and nowhere else.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

Section = Literal["Accuracy", "Loss", "Generalisation", "Curvature", "Flatness", "Other"]
SECTIONS: Final[tuple[Section, ...]] = (
    "Accuracy", "Loss", "Generalisation", "Curvature", "Flatness", "Other",
)  # fmt: skip

Basis = Literal["clean", "attacks", "curvature"]
"""What a number rests on, and so which doubts concern it: the network's answers alone, attacks on
it, or its second derivatives."""


@dataclass(frozen=True)
class Measure:
    """One measure.

    Attributes:
        name: as in reports: ``accuracy.pgd``.
        label: in words; ``{attack}`` and ``{objective}`` are filled in from a measurement.
        section: the heading that it stands under.
        basis: what it rests on.
        unit: ``fraction``, ``nats``, ``""`` for none, ``None`` where each measurement says.
        low, high: the values that it can have.
        better: which way is better; ``None`` where neither is.
        attack: the attack of an accuracy, in words.
        error_bar: ``interval`` for an estimate, ``exact`` for what needs none, ``none`` for what
            has none: a gate does not rule on that.
        heading: of its column where models stand side by side, in two lines; ``""`` for no column.
        of_one_architecture: compared only between models of one architecture.
        stages: for an accuracy that a gate decides example by example, the attacks that an example
            has to withstand, from the cheapest: every adversarial example found is proof, whichever
            attack found it.
        passes: what the last of ``stages`` costs for an example that it does not break; a backward
            pass counts as two.
        any_threat: is the same whatever the threat model.
        split: the split that it is of where a report does not say: that of the audited examples
            (``""``), both (``gap``), or the training split (``train``).
        study: short name where measures are correlated with outcomes over many models; ``""`` for
            none.
        outcome: stands on the side of the outcomes there.
    """

    name: str
    label: str
    section: Section
    basis: Basis
    unit: str | None = None
    low: float = -math.inf
    high: float = math.inf
    better: Literal["higher", "lower"] | None = None
    attack: str = ""
    error_bar: Literal["interval", "exact", "none"] = "interval"
    heading: str = ""
    of_one_architecture: bool = False
    stages: tuple[str, ...] = ()
    passes: int = 0
    any_threat: bool = False
    split: Literal["", "gap", "train"] = ""
    study: str = ""
    outcome: bool = False


def _accuracy(name: str, label: str, **said: Any) -> Measure:
    return Measure(
        f"accuracy.{name}", label, "Accuracy", said.pop("basis", "attacks"), "fraction", 0.0, 1.0,
        "higher", **said,
    )  # fmt: skip


def _curvature(name: str, label: str, low: float = -math.inf, **said: Any) -> Measure:
    return Measure(name, label, "Curvature", "curvature", low=low, better="lower", **said)


def _flatness(name: str, label: str, **said: Any) -> Measure:
    return Measure(
        f"flatness.{name}", label, "Flatness", said.pop("basis", "attacks"), better="lower", **said
    )


_ROBUST = "Robust accuracy, {attack}"
# In reading order.
_ROWS = (
    _accuracy("clean", "Clean accuracy", basis="clean", any_threat=True, stages=("clean",),
              passes=1, heading="Clean\nacc. %"),
    _accuracy("pgd", _ROBUST, attack="PGD", stages=("clean", "pgd"), passes=60,
              heading="PGD\nacc. %"),
    _accuracy("cw", _ROBUST, attack="CW", stages=("clean", "cw"), passes=60),
    _accuracy("fast", _ROBUST, attack="fast", stages=("clean", "pgd", "fast"), passes=1000),
    _accuracy("autoattack", _ROBUST, attack="AutoAttack",
              stages=("clean", "pgd", "fast", "autoattack"), passes=11_700,
              heading="AutoAtt.\nacc. %"),
    _accuracy("square", _ROBUST, attack="Square", stages=("clean", "square"), passes=5000),
    _accuracy("transfer", "Accuracy on {attack}", attack="transferred images"),
    Measure("distance.median", "Median distance to an error", "Accuracy", "attacks", low=0.0,
            better="higher"),
    Measure("loss.clean", "Clean loss", "Loss", "clean", "nats", 0.0, better="lower",
            any_threat=True),
    Measure("loss.robust", "Robust loss", "Loss", "attacks", "nats", 0.0, better="lower",
            heading="Robust\nloss", study="robust loss", outcome=True),
    Measure("gap.error", "Robust error, test minus train", "Generalisation", "attacks", "fraction",
            -1.0, 1.0, "lower", split="gap", study="error gap", outcome=True),
    Measure("gap.loss", "Robust loss, test minus train", "Generalisation", "attacks", "nats",
            better="lower", split="gap", heading="Loss\ngap", study="loss gap", outcome=True),
    _curvature("wci", "Weight-Curvature Index (WCI)", 0.0, heading="WCI", of_one_architecture=True,
               study="WCI"),
    _curvature("wci.bound", "Cauchy-Schwarz bound of WCI", 0.0, error_bar="none"),
    Measure("weights.frobenius", "Weight norm ||W||_F", "Curvature", "clean", low=0.0,
            error_bar="exact", any_threat=True, study="weight norm"),
    _curvature("trace.total", "Trace, all layers", study="trace"),
    _curvature("hessian.trace", "Hessian trace", study="Hessian trace"),
    _curvature("hessian.largest", "Largest eigenvalue", error_bar="none",
               heading="Largest\neigenv.", of_one_architecture=True, study="largest eigenv."),
    _curvature("hessian.smallest", "Smallest eigenvalue", error_bar="none"),
    _curvature("hessian.relative_largest", "Largest relative eigenvalue", error_bar="none",
               study="relative eigenv."),
    _curvature("trh.top_layer", "Top-layer Hessian trace, {objective}", study="top-layer TrH"),
    _curvature("pacbayes.bound", "PAC-Bayes bound, up to constants", split="train"),
    _flatness("average", "Average flatness", heading="Flatn.\naverage", study="avg. flatness"),
    _flatness("worst", "Worst-case flatness", heading="Flatn.\nworst", study="worst flatness"),
    _flatness("clean_average", "Average flatness, clean loss", basis="clean"),
    _flatness("clean_worst", "Worst-case flatness, clean loss", basis="clean"),
)  # fmt: skip
_REGISTRY: dict[str, Measure] = {row.name: row for row in _ROWS}


def known() -> Sequence[Measure]:
    """All registered measures, in reading order."""
    return tuple(_REGISTRY.values())


def find(name: str) -> Measure:
    """The measure of that name; of an unknown name one that is called so and has no bounds.

    >>> find("accuracy.pgd").unit
    'fraction'
    """
    found = _REGISTRY.get(name)
    return found or Measure(name, name, "Other", "clean")


def register(measures: Iterable[Measure]) -> None:
    """Add measures; one of a name that is there already must be the same.

    Raises:
        ValueError: another measure has that name.
    """
    for measure in measures:
        if _REGISTRY.setdefault(measure.name, measure) != measure:
            raise ValueError(f"a measure {measure.name!r} is registered already, and differs")
