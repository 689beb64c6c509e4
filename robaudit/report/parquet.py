"""Reports as a Parquet table with typed columns, to analyse many of them."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from typing import Any

from robaudit.errors import UsageError
from robaudit.report.csvfile import COLUMNS, measurement_rows
from robaudit.report.text import plain
from robaudit.schema import Report

_NUMBERS = ("eps", "value", "low", "high", "level", "standard_error", "seconds")


def to_parquet(reports: Sequence[Report]) -> bytes:
    """One row a measurement: the columns of the CSV, then settings and provenance.

    ``doubts`` is a list. Added are ``data_sha256``, ``settings`` (JSON text),
    ``warnings`` (a list), ``seed``, ``device``, ``started`` and ``robaudit``. What was not measured
    is null.

    Raises:
        UsageError: pyarrow is not installed.
    """
    try:
        import pyarrow as arrow
        import pyarrow.parquet
    except ImportError:
        raise UsageError(
            "Parquet files need pyarrow, which is not installed",
            "pip install 'robaudit[parquet]', or choose --format csv.",
        ) from None
    texts = arrow.list_(arrow.string())
    typed = {**dict.fromkeys(_NUMBERS, arrow.float64()), "n": arrow.int64(), "doubts": texts}
    fields = [(column, typed.get(column, arrow.string())) for column in COLUMNS]
    fields += [(column, arrow.string()) for column in ("data_sha256", "settings")]
    fields += [("warnings", texts), ("seed", arrow.int64())]
    fields += [(column, arrow.string()) for column in ("device", "started", "robaudit")]
    rows = [
        dict(zip(COLUMNS, map(_cell, cells), strict=True)) | more
        for cells, more in zip(measurement_rows(reports), _more(reports), strict=True)
    ]
    file = io.BytesIO()
    pyarrow.parquet.write_table(arrow.Table.from_pylist(rows, schema=arrow.schema(fields)), file)
    return file.getvalue()


def _more(reports: Sequence[Report]) -> list[dict[str, Any]]:
    return [
        {
            "data_sha256": plain(
                (report.train_data or report.data if m.split == "train" else report.data).sha256
            ),
            "settings": json.dumps(m.settings, allow_nan=False),
            "doubts": [plain(doubt) for doubt in m.doubts],
            "warnings": [plain(warning) for warning in m.warnings],
            "seed": report.provenance.seed,
            "device": plain(report.provenance.device),
            "started": plain(report.provenance.started),
            "robaudit": plain(report.robaudit),
        }
        for report in reports
        for m in report.measurements
    ]


def _cell(value: object) -> object:
    return plain(value) if isinstance(value, str) else value
