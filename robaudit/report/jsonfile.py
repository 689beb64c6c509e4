"""The report as JSON: written whole or not at all, read with validation; and its JSON Schema."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from robaudit.atomic_write import atomic_write
from robaudit.errors import DataError, RobauditError, UsageError
from robaudit.notebook import Beside
from robaudit.report.text import plain
from robaudit.schema import SCHEMA_VERSION, Report, Verdict
from robaudit.toml_file import check_depth

FILE_NAME = "report.json"
_MOST_BYTES = 1 << 28
_DIALECT = {"$schema": "https://json-schema.org/draft/2020-12/schema"}


def to_json(report: Report) -> str:
    """The report as JSON text, in ASCII, indented by two.

    Raises:
        RobauditError: a number in it is not finite, which JSON cannot say.
    """
    return json.dumps(to_object(report), indent=2, allow_nan=False)


def to_object(report: Report) -> dict[str, Any]:
    """The report as plain lists and dicts of finite numbers, ready for ``json.dumps``.

    Raises:
        RobauditError: a number in it is not finite.
    """
    # Checked before pydantic makes JSON of it, which would silently turn nan into null.
    place = next(_not_finite(report.model_dump()), None)
    if place is not None:
        raise RobauditError(
            f"the report holds a number that is not finite: {plain(place)}",
            "A measurement without a number has status failed and a reason; please report this.",
        )
    data: dict[str, Any] = report.model_dump(mode="json")
    return data


def write_report(report: Report, path: Path) -> Path:
    """Write ``report.json`` and return its path; a crash leaves the old file or the new one.

    Args:
        report: what to write.
        path: a ``.json`` file, or a folder, made where it is missing.

    Raises:
        RobauditError: a number is not finite.
        OSError: the folder or file cannot be written.
    """
    text = to_json(report)
    file = path if path.suffix == ".json" and not path.is_dir() else path / FILE_NAME
    file.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(file, (text + "\n").encode())
    return file


def read_report(path: str | Path) -> Report:
    """Read a report. Needs no torch.

    Args:
        path: a ``report.json``, or the folder that holds it.

    Returns:
        The report; its methods ``save`` and ``figure`` find what lies beside it.

    Raises:
        UsageError: there is no such file.
        DataError: it cannot be read, is no JSON, is of another schema version, or is no report.

    Example::

        report = ra.read_report("results/robust")
        report.to_pandas()
    """
    path = Path(path)
    file = path / FILE_NAME if path.is_dir() else path
    shown = plain(file)
    try:
        with file.open("rb") as stream:
            text = stream.read(_MOST_BYTES + 1)
        if len(text) > _MOST_BYTES:
            raise ValueError(f"it has more than {_MOST_BYTES:,} bytes")
        data = json.loads(text.decode("utf-8-sig"), parse_constant=_refuse)
        check_depth(data)
    except FileNotFoundError:
        advice = f"Name a {FILE_NAME}, or the folder that `robaudit audit` wrote it to."
        raise UsageError(f"no report at {shown}", advice) from None
    except OSError as error:
        raise DataError(f"{shown} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else plain(error)
        advice = None
        if Path(path).suffix != ".json":
            advice = "Of a checkpoint, robaudit audit CKPT --out DIR writes a report."
        raise DataError(f"{shown} is not JSON: {reason}", advice) from None
    version = data.get("schema_version") if isinstance(data, dict) else None
    if not isinstance(version, int) or isinstance(version, bool):
        raise DataError(f"{shown} is no robaudit report: it has no schema_version")
    if version != SCHEMA_VERSION:
        age, advice = (
            ("a newer", "Update robaudit to read it.")
            if version > SCHEMA_VERSION
            else ("an older", "Read it with that version, or audit again.")
        )
        raise DataError(
            f"{shown} was written by {age} robaudit: "
            f"schema version {version}, this one reads {SCHEMA_VERSION}",
            advice,
        )
    try:
        report = Report.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise DataError(f"{shown} is not valid: {plain(place)}: {plain(first['msg'])}") from None
    # 1e999 is valid JSON and reads as infinity.
    hole = next(_not_finite(data), None)
    if hole is not None:
        raise DataError(f"{shown} is not valid: {plain(hole)} is not a finite number")
    report._beside = Beside(folder=file.parent)
    return report


def schema_json() -> str:
    """The JSON Schema (draft 2020-12) of the report as :func:`to_json` writes it."""
    schema = Report.model_json_schema(mode="serialization")
    # The only rule about several fields: a value, or the reason why there is none.
    schema["$defs"]["Measurement"] |= {
        "if": {"properties": {"status": {"const": "ok"}}},
        "then": {"properties": {"value": {"type": "number"}}},
        "else": {"properties": {"value": {"type": "null"}, "reason": {"minLength": 1}}},
    }
    schema["$defs"]["Measurement"]["else"]["properties"]["reason"]["type"] = "string"
    return json.dumps(_DIALECT | schema, indent=2)


def verdict_schema_json() -> str:
    """The JSON Schema (draft 2020-12) of a gate's verdict."""
    schema = Verdict.model_json_schema(mode="serialization")
    return json.dumps(_DIALECT | schema, indent=2)


def _not_finite(data: Any) -> Iterator[str]:
    rest = [("", data)]
    while rest:
        place, item = rest.pop()
        if isinstance(item, float) and not math.isfinite(item):
            yield place
        elif isinstance(item, dict):
            rest += [
                (f"{place}.{key}" if place else str(key), value) for key, value in item.items()
            ]
        elif isinstance(item, list | tuple):
            rest += [(f"{place}[{i}]", value) for i, value in enumerate(item)]


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is no JSON number")
