"""What measurements carry in ``details``, read into typed rows."""

from __future__ import annotations

import math
from typing import Any

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from robaudit.errors import DataError
from robaudit.report.text import plain
from robaudit.schema import Measurement, Report


class LayerRow(BaseModel):
    """One layer of ``wci``: its norm, its trace with standard error, what it adds to WCI."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)

    name: str
    frobenius: float
    trace: float
    contribution: float
    standard_error: float | None = None
    share: float | None = None


class SpreadRow(BaseModel):
    """How one layer's eigenvalues lie around their mean."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)

    name: str
    dimension: int
    mean: float
    mean_standard_error: float
    deviation: float
    standard_error: float


class RadiusRow(BaseModel):
    """An accuracy within one radius, with its interval; the robust loss where it was maximised."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)

    eps: float
    value: float
    low: float
    high: float
    loss: float | None = None


class Density(BaseModel):
    """A spectral density on a grid of eigenvalues."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)

    grid: list[float]
    density: list[float]


_LAYERS = TypeAdapter(list[LayerRow])
_SPREADS = TypeAdapter(list[SpreadRow])
_RADII = TypeAdapter(list[RadiusRow])


def layer_rows(report: Report, split: str | None = None) -> list[LayerRow]:
    """The layer table of ``wci``, in the network's order; empty without one.

    Raises:
        DataError: a table that lacks a column or holds no numbers.
    """
    measurement = report.get("wci", split)
    table = measurement.details.get("layers") if measurement else None
    if table is None:
        return []
    try:
        rows = _LAYERS.validate_python(table)
    except ValidationError as error:
        raise unreadable("layer table of wci", error) from None
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
    measurement = report.get("hessian.trace")
    table = measurement.details.get("layers") if measurement else None
    if table is None:
        return []
    try:
        return _SPREADS.validate_python(table)
    except ValidationError as error:
        raise unreadable("layer table of hessian.trace", error) from None


def robustness_curves(report: Report) -> dict[str, list[RadiusRow]]:
    """By measurement, accuracies within ascending radii; empty where one radius was attacked.

    Raises:
        DataError: a curve that lacks a column or holds no numbers.
    """
    found = {}
    for measurement in report.measurements:
        table = measurement.details.get("curve")
        if table is None or measurement.split != report.data.split:
            continue
        try:
            found[measurement.name] = _RADII.validate_python(table)
        except ValidationError as error:
            raise unreadable(f"curve of {plain(measurement.name)}", error) from None
    return found


def density(report: Report) -> Density | None:
    """The spectral density of ``hessian.trace``, or ``None`` where none was computed.

    Raises:
        DataError: a density that is no pair of equally long lists of numbers.
    """
    measurement = report.get("hessian.trace")
    table = measurement.details.get("density") if measurement else None
    if table is None:
        return None
    try:
        result = Density.model_validate(table)
    except ValidationError as error:
        raise unreadable("density of hessian.trace", error) from None
    if len(result.grid) != len(result.density) or not result.grid:
        raise DataError("the density of hessian.trace and its grid differ in length")
    return result


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


def unreadable(what: str, error: ValidationError) -> DataError:
    """What to raise of a table in ``details`` that is not as it should be."""
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"])
    return DataError(f"the {what} cannot be read: {plain(place)}: {plain(first['msg'])}")
