"""The registry of measures: what each number is called, can be, and means. Imports no torch.

A measure is described where it is measured, by its probe in ``robaudit/audit/probes`` or in a
package with an entry point of the group ``robaudit.probes``. Every view of a report, the gate, the
batch tables and the reference pages read the rows here.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Final, Literal, get_args

from robaudit.errors import UsageError, did_you_mean

Section = Literal[
    "Accuracy",
    "Loss",
    "Calibration",
    "Generalisation",
    "Curvature",
    "Flatness",
    "Sharpness",
    "Other",
]
SECTIONS: Final[tuple[Section, ...]] = get_args(Section)

Basis = Literal["clean", "attacks", "curvature", "proof"]
"""What a number rests on, and so which doubts concern it: the network's answers alone, attacks on
it, its second derivatives, or a proof."""


@dataclass(frozen=True)
class Measure:
    """One measure; :func:`measure` fills in what its family has in common.

    Attributes:
        name: as in reports: ``accuracy.pgd``.
        label: in words; ``{attack}``, ``{objective}`` and ``{part}`` are filled in from a
            measurement.
        section: the heading under which it is shown.
        basis: what it rests on.
        place: its place within the section; measures of one place are sorted by name.
        unit: ``fraction``, ``nats``, ``""`` for none, ``None`` where each measurement states it.
        low, high: the values that it can have.
        better: which way is better; ``None`` where neither is.
        attack: the attack of an accuracy, in a label.
        attack_named: the attack in a sentence, where that differs.
        stepped: the steps and restarts of the attack are shown after its name: ``PGD-20 x10``.
        error_bar: ``interval`` for an estimate, ``exact`` for what needs none, ``none`` for what
            has none: a gate cannot rule on that.
        ruled: whether a gate may rule on it at all.
        heading: of its column where models are compared, in two lines; ``""`` for no column.
        of_one_architecture: compared only between models of one architecture.
        stages: for an accuracy that a gate decides example by example, the attacks that an example
            has to withstand, from the cheapest: every adversarial example found is proof, whichever
            attack found it. The last may be a proof of robustness that it has to have.
        passes: what the last of ``stages`` costs for an example that it does not break; a backward
            pass counts as two.
        any_threat: is the same whatever the threat model.
        split: the split that it belongs to where a caller does not name one: that of the audited
            examples (``""``), both (``gap``), or the training split (``train``).
        study: short name where measures are correlated with outcomes over many models; ``""`` for
            none.
        outcome: is one of the outcomes there.
        formula: what it is, in markdown, for the reference page.
        error: what its error bar is, likewise.
    """

    name: str
    label: str
    section: Section
    basis: Basis
    place: int = 1000
    unit: str | None = None
    low: float = -math.inf
    high: float = math.inf
    better: Literal["higher", "lower"] | None = None
    attack: str = ""
    attack_named: str = ""
    stepped: bool = False
    error_bar: Literal["interval", "exact", "none"] = "interval"
    ruled: bool = True
    heading: str = ""
    of_one_architecture: bool = False
    stages: tuple[str, ...] = ()
    passes: int = 0
    any_threat: bool = False
    split: Literal["", "gap", "train"] = ""
    study: str = ""
    outcome: bool = False
    formula: str = ""
    error: str = ""

    def attack_in(self, settings: Mapping[str, Any], sentence: bool = False) -> str:
        """The attack in words, as a measurement's settings have it: ``PGD-20 x10``.

        Args:
            settings: of the measurement.
            sentence: named as in a sentence: ``the fast tier``, not ``fast``.
        """
        name = (self.attack_named if sentence else "") or self.attack or self.name
        if self.stepped:
            steps, restarts = settings.get("steps"), settings.get("restarts")
            name += f"-{steps}" if isinstance(steps, int) else ""
            name += f" x{restarts}" if isinstance(restarts, int) and restarts > 1 else ""
        if settings.get("engine") == "robaudit":
            name += " (native)"
        version = settings.get("version")
        if isinstance(version, str) and version != "standard":
            name += f" ({version})"
        return name


_CURVATURE = {
    "section": "Curvature",
    "basis": "curvature",
    "unit": "",
    "better": "lower",
    "error": "s.e. over examples",
}
_OVER_EXAMPLES = "s.e. over examples, normal interval"
# What measures have in common by the part of their name before the first dot.
_FAMILIES: dict[str, dict[str, Any]] = {
    "accuracy": {
        "section": "Accuracy",
        "basis": "attacks",
        "unit": "fraction",
        "low": 0.0,
        "high": 1.0,
        "better": "higher",
        "error": "Clopper-Pearson interval; s.e. `sqrt(p (1 - p) / n)`",
    },
    "distance": {"section": "Accuracy", "basis": "attacks", "better": "higher"},
    "loss": {
        "section": "Loss",
        "basis": "attacks",
        "unit": "nats",
        "low": 0.0,
        "better": "lower",
        "error": _OVER_EXAMPLES,
    },
    "gap": {"section": "Generalisation", "basis": "attacks", "better": "lower", "split": "gap"},
    "wci": _CURVATURE,
    "trace": _CURVATURE,
    "hessian": _CURVATURE,
    "trh": _CURVATURE,
    "pacbayes": {**_CURVATURE, "unit": "nats", "split": "train"},
    "weights": {**_CURVATURE, "basis": "clean"},
    "flatness": {"section": "Flatness", "basis": "attacks", "unit": "nats", "better": "lower"},
    "sharpness": {"section": "Sharpness", "basis": "attacks", "better": "lower"},
    "margin": {
        "section": "Sharpness",
        "basis": "attacks",
        "unit": "",
        "better": "higher",
        "error": "interval between order statistics",
    },
    "gradient": {
        "section": "Sharpness",
        "basis": "attacks",
        "unit": "",
        "error": _OVER_EXAMPLES,
    },
    "linearity": {
        "section": "Sharpness",
        "basis": "attacks",
        "low": 0.0,
        "better": "lower",
        "error": _OVER_EXAMPLES,
    },
    "calibration": {
        "section": "Calibration",
        "basis": "attacks",
        "low": 0.0,
        "better": "lower",
        "error": _OVER_EXAMPLES,
    },
}
_NO_FAMILY = {"section": "Other", "basis": "clean"}

_registry: dict[str, Measure] = {}
_loaded = False


def measure(name: str, label: str, **fields: Any) -> Measure:
    """A measure with the fields of its family, but for those given.

    >>> measure("accuracy.mine", "Robust accuracy, {attack}", attack="Mine").unit
    'fraction'
    """
    family = _FAMILIES.get(name.partition(".")[0], _NO_FAMILY)
    return Measure(name, label, **(family | fields))


def known() -> Sequence[Measure]:
    """All registered measures, in reading order."""
    _load()
    return sorted(
        _registry.values(), key=lambda row: (SECTIONS.index(row.section), row.place, row.name)
    )


def find(name: str) -> Measure:
    """The measure of that name; for an unknown name one of that label with its family's fields.

    >>> find("accuracy.pgd").unit
    'fraction'
    """
    _load()
    return _registry.get(name) or measure(name, name)


def check_name(name: str, own: Sequence[str]) -> None:
    """Refuse a name that is of no measure.

    Args:
        own: names that a report has, registered or not.

    Raises:
        UsageError: it is not registered, and none of ``own``; says what may have been meant.
    """
    _load()
    if name not in _registry and name not in own:
        raise UsageError(
            f"there is no measure {name!r}{did_you_mean(name, [*own, *_registry])}",
            f"The report has {', '.join(dict.fromkeys(own)) or 'no measurement'}.",
        )


def ruled() -> dict[str, Measure]:
    """The measures that a gate can have a rule on, by name, in reading order."""
    return {row.name: row for row in known() if row.ruled and row.error_bar != "none"}


def stages() -> dict[str, int]:
    """The attacks that a gate runs example by example, from the cheapest, with their passes."""
    rows = sorted((row for row in known() if row.stages), key=lambda row: row.passes)
    return {row.stages[-1]: row.passes for row in rows}


def register(measures: Iterable[Measure]) -> None:
    """Add measures; one of a name that is registered already must be the same.

    Raises:
        ValueError: another measure has that name.
    """
    _load()
    _add(measures)


def _add(measures: Iterable[Measure]) -> None:
    for row in measures:
        if _registry.setdefault(row.name, row) != row:
            raise ValueError(f"a measure {row.name!r} is registered already, and differs")


def _load() -> None:
    """Register the measures of every probe there is, once."""
    global _loaded
    if not _loaded:
        # By name: the probes are in a room above this one.
        for probe in import_module("robaudit.audit.probes").known():
            _add(probe.measures)
        _loaded = True
