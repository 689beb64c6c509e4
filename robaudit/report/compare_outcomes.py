"""A report with its outcomes for every example, which a paired comparison needs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robaudit.errors import DataError
from robaudit.outcomes import read_outcomes
from robaudit.report.jsonfile import read_report
from robaudit.report.text import plain
from robaudit.schema import Measurement, Report

# Measurements besides accuracies that are the mean of the outcomes of the same name.
_MEANS = ("loss.clean", "loss.robust", "trh.top_layer", "corruptions.mce")


@dataclass(frozen=True)
class Audited:
    """A report, and its outcomes by ``split.name``; empty without ``examples.npz``."""

    report: Report
    outcomes: Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class ExampleOutcomes:
    """One measurement for every example.

    Attributes:
        index: the examples' places in the data set.
        groups: a number for each example, equal where examples show the same image; ``None``
            where all images differ.
    """

    index: NDArray[np.int64]
    values: NDArray[Any]
    groups: NDArray[np.int64] | None = None


def read_audited(path: Path) -> Audited:
    """A report folder, or a ``report.json`` with ``examples.npz`` beside it where there is one.

    Raises:
        UsageError: there is no report.
        DataError: the report or the outcomes cannot be read.
    """
    return Audited(read_report(path), read_outcomes(path) or {})


def outcomes_of(audited: Audited, measurement: Measurement) -> ExampleOutcomes | None:
    """The values that a measurement is the mean of: bools for an accuracy, else floats.

    An accuracy over several versions of each example has the share of them as a float.

    Returns:
        ``None`` where there are none.

    Raises:
        DataError: the outcomes do not belong to this measurement.
    """
    accuracy = measurement.name.startswith("accuracy.")
    key = f"{measurement.split}.{measurement.name}"
    index = audited.outcomes.get(f"{measurement.split}.index")
    values = audited.outcomes.get(key)
    if not (accuracy or measurement.name in _MEANS) or index is None or values is None:
        return None
    fitting = (
        index.ndim == values.ndim == 1
        and index.dtype.kind == "i"
        and values.dtype.kind in ("bf" if accuracy else "f")
        and len(values) == measurement.n
        and len(values) <= len(index)
    )
    if fitting and measurement.value is not None:
        mean = float(values.mean(dtype=np.float64))
        fitting = abs(mean - measurement.value) <= 1e-5 * max(1.0, abs(measurement.value))
    if not fitting:
        raise DataError(
            f"examples.npz does not belong to the report of "
            f"{plain(audited.report.subject.source)}: {plain(key)} is not what its "
            f"{plain(measurement.name)} was made of",
            "Audit again, or take examples.npz away to compare without pairing.",
        )
    groups = audited.outcomes.get(f"{measurement.split}.group")
    if groups is not None and (
        groups.ndim != 1 or groups.dtype.kind != "i" or len(groups) < len(values)
    ):
        groups = None
    return ExampleOutcomes(
        index[: len(values)].astype(np.int64),
        values,
        None if groups is None else groups[: len(values)].astype(np.int64),
    )
