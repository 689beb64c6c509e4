"""What measurements carry in ``details``, read into typed rows."""

from __future__ import annotations

import math
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from robaudit.errors import DataError
from robaudit.report.text import plain
from robaudit.report.words import attack_names
from robaudit.schema import Measurement, Report


class _Row(BaseModel):
    model_config = ConfigDict(frozen=True, allow_inf_nan=False)


_AnyRow = TypeVar("_AnyRow", bound=_Row)


class LayerRow(_Row):
    """One layer of ``wci``: its norm, its trace with standard error, its contribution to WCI."""

    name: str
    frobenius: float
    trace: float
    contribution: float
    standard_error: float | None = None
    share: float | None = None


class SpreadRow(_Row):
    """Mean and deviation of one layer's eigenvalues, with standard errors."""

    name: str
    dimension: int
    mean: float
    mean_standard_error: float
    deviation: float
    standard_error: float


class RadiusRow(_Row):
    """An accuracy within one radius, with its interval; the robust loss where it was maximised."""

    eps: float
    value: float
    low: float
    high: float
    loss: float | None = None


class BinRow(_Row):
    """A bin of a calibration error: examples, their mean confidence, how many are correct, and the
    interval of their accuracy.
    """

    n: int = Field(gt=0)
    confidence: float
    correct: int
    low: float
    high: float


class UnionRow(_Row):
    """What attacks in one norm of a union did, in examples.

    ``tried``: correctly classified, and not broken in a norm before, or all of them. ``before``: of
    the broken ones, those that images of earlier attacks broke. The last four are there where every
    example was attacked in every norm; ``alone`` is what no other norm broke.
    """

    norm: str
    eps: float
    tried: int
    before: int
    broken: int
    left: int
    accuracy: float | None = None
    low: float | None = None
    high: float | None = None
    alone: int | None = None


class ClassRow(_Row):
    """One class: its examples, its clean and robust accuracy with simultaneous intervals."""

    label: int
    name: str
    n: int
    clean: float
    clean_low: float
    clean_high: float
    robust: float
    low: float
    high: float


class SpectralDensity(_Row):
    """A spectral density on a grid of eigenvalues."""

    grid: list[float]
    density: list[float]


class SweepRow(_Row):
    """Flatness within one relative radius; ``perturbations`` where random ones were drawn."""

    xi: float
    value: float
    standard_error: float | None = None
    perturbations: int | None = None


class SeverityRow(_Row):
    """An accuracy under a corruption at one severity, with its interval."""

    severity: int
    accuracy: float
    low: float
    high: float


class CorruptionRow(_Row):
    """An accuracy under one corruption, as a mean over severities, and at each of them."""

    name: str
    accuracy: float
    low: float
    high: float
    severities: list[SeverityRow]


class _CorruptionError(_Row):
    name: str
    error: float


def attacked(report: Report) -> list[Measurement]:
    """Accuracies under attack on the audited split, the smallest first; AutoAttack among equals."""
    found = [m for name in attack_names() if (m := report.get(name)) is not None]
    return sorted(
        (m for m in found if m.value is not None),
        key=lambda m: (m.value, m.name != "accuracy.autoattack"),
    )


def layer_rows(report: Report, split: str | None = None) -> list[LayerRow]:
    """The layer table of ``wci``, in the network's order; empty without one.

    Raises:
        DataError: a table that lacks a column or holds no numbers.
    """
    rows = _rows(LayerRow, report.get("wci", split), "layers", "layer table of wci")
    if any(row.share is None for row in rows):
        total = sum(row.contribution for row in rows)
        rows = [
            row.model_copy(update={"share": row.contribution / total if total else 0.0})
            for row in rows
        ]
    return rows


def spread_rows(report: Report) -> list[SpreadRow]:
    """The spread of each layer's eigenvalues from ``hessian.trace``; empty without one.

    Raises:
        DataError: a table that lacks a column or holds no numbers.
    """
    trace = report.get("hessian.trace")
    return _rows(SpreadRow, trace, "layers", "layer table of hessian.trace")


def robustness_curves(report: Report) -> dict[str, list[RadiusRow]]:
    """By measurement, accuracies within ascending radii; empty where one radius was attacked.

    Raises:
        DataError: a curve that lacks a column or holds no numbers.
    """
    return {
        m.name: _rows(RadiusRow, m, "curve", f"curve of {plain(m.name)}")
        for m in report.measurements
        if m.details.get("curve") is not None and m.split == report.data.split
    }


def union_rows(report: Report) -> list[UnionRow]:
    """The norms of a union in the order in which they were tried; empty without a union.

    Raises:
        DataError: a table that lacks a column or holds no numbers.
    """
    return _rows(UnionRow, report.get("accuracy.union"), "union", "table of accuracy.union")


def class_rows(report: Report, split: str | None = None) -> list[ClassRow]:
    """The classes that have examples, by label; empty where they were not measured.

    Raises:
        DataError: a table that lacks a column or holds no numbers.
    """
    found = report.get("accuracy.worst_class", split)
    return _rows(ClassRow, found, "classes", "table of classes")


def confusion_counts(report: Report) -> dict[tuple[int, int], int]:
    """By label and predicted class, how many broken images of that label are taken for it.

    Raises:
        DataError: it is no list of such counts.
    """
    found = report.get("accuracy.worst_class")
    table = None if found is None else found.details.get("confusion")
    rows = [] if table is None else _read(list[tuple[int, int, int]], table, "confusion of classes")
    return {(label, predicted): count for label, predicted, count in rows}


def sweep_rows(measurement: Measurement) -> list[SweepRow]:
    """Flatness within ascending radii; empty where one radius was measured.

    Raises:
        DataError: a table that lacks a column or holds no numbers.
    """
    return _rows(SweepRow, measurement, "sweep", f"sweep of {plain(measurement.name)}")


def corruption_rows(report: Report) -> list[CorruptionRow]:
    """Accuracies under corruptions, all at the same severities; empty where not measured.

    Raises:
        DataError: a table that lacks a column or holds no numbers.
    """
    found = report.get("accuracy.corruptions")
    rows = _rows(CorruptionRow, found, "corruptions", "table of accuracy.corruptions")
    levels = [[one.severity for one in row.severities] for row in rows]
    if any(own != levels[0] or not own for own in levels):
        raise DataError("the table of accuracy.corruptions has not the same severities everywhere")
    return rows


def corruption_errors(report: Report) -> dict[str, float]:
    """The error under each corruption relative to a reference model's; empty where not measured.

    Raises:
        DataError: a table that lacks a column or holds no numbers.
    """
    found = report.get("corruptions.mce")
    rows = _rows(_CorruptionError, found, "corruptions", "table of corruptions.mce")
    return {row.name: row.error for row in rows}


def calibration_bins(report: Report) -> dict[str, list[BinRow]]:
    """By measurement, the bins of a calibration error; empty where none was measured.

    Raises:
        DataError: bins that lack a column or hold no numbers.
    """
    names = ("calibration.ece", "calibration.adversarial_ece")
    found = {name: report.get(name) for name in names}
    return {
        name: rows
        for name, m in found.items()
        if (rows := _rows(BinRow, m, "bins", f"bins of {name}"))
    }


def density(report: Report) -> SpectralDensity | None:
    """The spectral density of ``hessian.trace``, or ``None`` where none was computed.

    Raises:
        DataError: a density that is no pair of equally long lists of numbers.
    """
    trace = report.get("hessian.trace")
    if trace is None or trace.details.get("density") is None:
        return None
    found: SpectralDensity = _read(
        SpectralDensity, trace.details["density"], "density of hessian.trace"
    )
    if len(found.grid) != len(found.density) or not found.grid:
        raise DataError("the density of hessian.trace and its grid differ in length")
    return found


def _rows(
    kind: type[_AnyRow], measurement: Measurement | None, key: str, what: str
) -> list[_AnyRow]:
    """The table of that key in a measurement's details; empty where it has none."""
    table = measurement.details.get(key) if measurement else None
    rows: list[_AnyRow] = [] if table is None else _read(list[kind], table, what)  # type: ignore[valid-type]
    return rows


def _read(kind: Any, value: Any, what: str) -> Any:
    try:
        return TypeAdapter(kind).validate_python(value)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise DataError(
            f"the {what} cannot be read: {plain(place)}: {plain(first['msg'])}"
        ) from None


def extra(measurement: Measurement, key: str) -> Any:
    """``details[key]``, else ``settings[key]``, else ``None``."""
    return measurement.details.get(key, measurement.settings.get(key))


def extra_number(measurement: Measurement, key: str) -> float | None:
    """:func:`extra` where it is a finite number, else ``None``."""
    value = extra(measurement, key)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def number_list(values: Any) -> list[float] | None:
    """A list of numbers out of ``details``, or ``None`` where it is something else."""
    if not isinstance(values, list):
        return None
    known = all(isinstance(one, int | float) and not isinstance(one, bool) for one in values)
    return [float(one) for one in values] if known else None


def trace_symbol(report: Report, split: str | None = None) -> str:
    """``Tr(H_k)``, or ``Tr(G_k)`` where the traces are of the Gauss-Newton matrix."""
    measurement = report.get("wci", split)
    gauss_newton = measurement and extra(measurement, "quantity") == "gauss-newton"
    return "Tr(G_k)" if gauss_newton else "Tr(H_k)"
