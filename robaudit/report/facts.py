"""What was audited and how, as rows of a name and a text; the text is foreign and not escaped."""

from __future__ import annotations

import json
import shlex
from typing import Any

from robaudit.report.words import (
    architecture,
    evidence,
    normalization,
)
from robaudit.schema import Data, Measurement, Provenance, Report, Subject, Threat
from robaudit.types import radius


def subject_rows(subject: Subject, digits: int | None = None) -> list[tuple[str, str]]:
    """The checkpoint, and by whom or what it was identified.

    Args:
        digits: so many of its hash; ``None`` for all.
    """
    tried = evidence(subject)
    return [
        ("Checkpoint", f"{subject.source} ({subject.format})"),
        ("sha256", (subject.sha256 or "none")[:digits]),
        ("Architecture", architecture(subject)),
        ("Normalisation", normalization(subject)),
        *([("Tried on the data", tried)] if tried else []),
    ]


def header_rows(report: Report, digits: int | None = None) -> list[tuple[str, str]]:
    """Checkpoint, data and threat model.

    Args:
        digits: so many of every hash; ``None`` for all.
    """
    rows = [*subject_rows(report.subject, digits), ("Data", data_text(report.data, digits))]
    if report.train_data is not None:
        rows.append(("Training data", data_text(report.train_data, digits)))
    rows.append(("Threat model", f"{threat_text(report.threat)}, images in [0, 1]"))
    return rows


def data_text(data: Data, digits: int | None = None) -> str:
    """A data set: its name, how many examples, and so many digits of its hash."""
    classes = f", {data.classes} classes" if data.classes else ""
    return f"{data.name}, {data.n} {data.split} examples{classes}, sha256 {data.sha256[:digits]}"


def short_threat(threat: Threat | None) -> str:
    """``linf 8/255``, for a sentence."""
    return "none" if threat is None else f"{threat.norm} {radius(threat.eps)}"


def threat_text(threat: Threat | None) -> str:
    """``linf, eps = 8/255``, or that nothing was attacked."""
    if threat is None:
        return "none, nothing was attacked"
    return f"{threat.norm}, eps = {radius(threat.eps)}"


def settings_text(measurement: Measurement) -> str:
    """``steps = 20, restarts = 1``."""
    return ", ".join(
        f"{key} = {setting_text(key, value)}" for key, value in measurement.settings.items()
    )


def setting_text(key: str, value: Any) -> str:
    """A setting's value as it may have been given: radii and steps in 255ths, short numbers.

    >>> setting_text("step_size", 2 / 255), setting_text("rho", 1 / 3), setting_text("n", None)
    ('2/255', '0.333333', 'null')
    """
    if isinstance(value, float) and key in ("eps", "step_size"):
        return radius(value)
    if isinstance(value, float):
        return f"{value:.6g}"
    return value if isinstance(value, str) else json.dumps(value, default=str)


def command(provenance: Provenance) -> str:
    """The command line as a shell takes it."""
    return shlex.join(provenance.argv)


def provenance_rows(made: Provenance, version: str) -> list[tuple[str, str]]:
    """How to get the same numbers again, by which ``version`` of robaudit."""
    rows = [
        ("Command", command(made)),
        ("Started", made.started),
        ("Seconds", f"{made.seconds:.1f}"),
        ("Device", made.device),
        ("Precision", made.precision),
        ("Batch size", "none" if made.batch_size is None else str(made.batch_size)),
        ("Seed", str(made.seed)),
        ("robaudit", version),
        ("Versions", ", ".join(f"{name} {version}" for name, version in made.versions.items())),
    ]
    if made.git is not None:
        rows.append(("Commit", made.git.commit + (" with changes" if made.git.dirty else "")))
    return rows
