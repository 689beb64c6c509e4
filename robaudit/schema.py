"""The report, version 1: what an audit found, and everything needed to defend it. No torch here.

Every format a person or a CI system reads is rendered from a :class:`Report`. Per-example outcomes
do not belong in it; they go to ``examples.npz`` beside it.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PrivateAttr, model_validator

from robaudit.brief import shortened, wrapped
from robaudit.measures import check_name, find
from robaudit.notebook import Beside, InNotebooks
from robaudit.types import Norm

SCHEMA_VERSION: Final = 1
# Measurements that the representation of a report lists.
_SHOWN = 30


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _in_unicode(cls, data: Any) -> Any:
        # File names that are no text come with surrogates, which no format takes.
        return {key: unicode(value) for key, value in data.items()} if type(data) is dict else data


_SURROGATES = re.compile("[\ud800-\udfff]")


def _spelled(found: re.Match[str]) -> str:
    byte = ord(found[0]) - 0xDC00
    return f"%{byte:02X}" if 0x80 <= byte <= 0xFF else "\ufffd"


def unicode(value: Any) -> Any:
    r"""Text, or lists and dicts of it, with the bytes that Python could not decode spelled out.

    >>> unicode({"a": ["plain", "x\udcff.pt"]})
    {'a': ['plain', 'x%FF.pt']}
    """
    if type(value) is str:
        return _SURROGATES.sub(_spelled, value)
    if type(value) is list:
        return [unicode(one) for one in value]
    if type(value) is dict:
        return {unicode(key): unicode(one) for key, one in value.items()}
    return value


# What a rounding of the ends of an interval may add.
_ROUNDING = 1e-9

# Counts of examples, parameters or epochs stay far below this.
Count = Annotated[int, Field(ge=0, le=10**15)]


def _lower(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


AnyCaseNorm = Annotated[Norm, BeforeValidator(_lower)]


class Interval(_Model):
    """A confidence interval and how it was made."""

    low: float
    high: float
    level: float = Field(gt=0, lt=1)
    method: str

    @model_validator(mode="after")
    def _low_then_high(self) -> Interval:
        if self.low > self.high + _ROUNDING * max(1.0, abs(self.high)):
            raise ValueError(f"an interval from {self.low:g} to {self.high:g} ends below its start")
        return self


Known = Literal["said", "determined", "assumed"]
"""How it is known what was audited: somebody said it; the evidence excludes every other candidate
whose robust accuracy would differ; or it is open, and the likeliest was taken because that was
asked for."""


class Evidence(_Model):
    """One network with one normalisation on ``n`` images: what decided.

    ``loss`` is the mean cross-entropy on them; ``robust_accuracy`` that under PGD-10 in the audit's
    threat model on the first ``attacked`` images, for those that clean images did not exclude.
    """

    architecture: str
    normalization: str
    accuracy: float = Field(ge=0, le=1)
    n: Count
    loss: float | None = None
    robust_accuracy: float | None = Field(None, ge=0, le=1)
    attacked: Count = 0

    @model_validator(mode="before")
    @classmethod
    def _of_version_0_1(cls, given: Any) -> Any:
        """Reports of robaudit 0.1 also hold a test statistic that is used no more."""
        if isinstance(given, dict):
            return {name: value for name, value in given.items() if name != "shift_t2"}
        return given


class Subject(_Model):
    """The checkpoint that was audited, and how it is known what it is.

    ``architecture_known`` and ``normalization_known`` tell said, determined and assumed apart;
    ``harmless`` says what else it may be with the same robust accuracy. ``evidence`` holds what was
    tried on the data where it was not given; ``epoch`` is what the file records beside its weights.
    """

    source: str
    sha256: str | None
    format: str
    architecture: str
    identified_by: str
    normalization: str
    normalized_by: str = ""
    architecture_known: Known | None = None
    normalization_known: Known | None = None
    harmless: str = ""
    evidence: list[Evidence] = Field(default_factory=list)
    parameters: Count
    epoch: float | None = None

    @property
    def assumed(self) -> bool:
        """Whether the network or its normalisation is a guess."""
        return "assumed" in (self.architecture_known, self.normalization_known)


class Data(_Model):
    """The examples of one split; ``sha256`` covers exactly the ``n`` examples used."""

    name: str
    split: str
    n: Count
    sha256: str
    classes: Count | None


class Threat(_Model):
    """The threat model: a norm and a radius on images in [0, 1]."""

    norm: Norm
    eps: float = Field(gt=0)


class Measurement(_Model):
    """One number with its error bar, or the reason why there is none.

    ``doubts`` are reasons why the value may overstate robustness or not be what its name says: a
    gate does not pass over them. ``warnings`` are all other remarks.
    """

    name: str
    status: Literal["ok", "failed", "skipped"] = "ok"
    reason: str | None = None
    value: float | None = None
    unit: str = ""
    split: str = "test"
    n: Count | None = None
    interval: Interval | None = None
    standard_error: float | None = Field(default=None, ge=0)
    settings: dict[str, Any] = Field(default_factory=dict)
    details: dict[str, Any] = Field(default_factory=dict)
    seconds: float | None = Field(default=None, ge=0)
    warnings: list[str] = Field(default_factory=list)
    doubts: list[str] = Field(default_factory=list)

    def __repr__(self) -> str:
        known = {
            name: value
            for name in type(self).model_fields
            if (value := getattr(self, name)) not in (None, "", [], {})
        }
        return wrapped("Measurement", [f"{key}={shortened(one)}" for key, one in known.items()])

    __str__ = __repr__

    @model_validator(mode="after")
    def _value_or_reason(self) -> Measurement:
        if self.status == "ok" and self.value is None:
            raise ValueError(f"{self.name}: status ok needs a value")
        if self.status != "ok" and (self.value is not None or not self.reason):
            raise ValueError(f"{self.name}: status {self.status} needs a reason and no value")
        return self


def _check_bounds(measurement: Measurement) -> None:
    """Refuse a number outside the bounds of its measure.

    Differences of two measurements have other bounds; they are in no report.
    """
    name, interval = measurement.name[:80], measurement.interval
    known = find(measurement.name)
    low, high, unit = known.low, known.high, known.unit
    if unit is not None and measurement.unit not in ("", unit):
        raise ValueError(f"{name}: is in {unit}, not in {measurement.unit[:80]!r}")
    ends = [interval.low, interval.high] if interval is not None and unit == "fraction" else []
    for number in (measurement.value, *ends):
        if number is not None and not low - _ROUNDING <= number <= high + _ROUNDING:
            raise ValueError(f"{name}: {number:g} is not in [{low:g}, {high:g}]")


class Git(_Model):
    """The commit of the folder the command ran in, where that is a repository."""

    commit: str
    dirty: bool


class Provenance(_Model):
    """How to get the same numbers again.

    ``edges`` is how far inside the box attacks took gradients, where the network has none at pixels
    of exactly 0 or 1; see :func:`edges_apart`.
    """

    argv: list[str]
    seed: int
    started: str
    seconds: float = Field(ge=0)
    versions: dict[str, str]
    device: str
    precision: str
    batch_size: Count | None
    git: Git | None = None
    edges: float | None = None


# From this version of PyTorch on, the gradient of clamp is zero at its bounds.
_NO_GRADIENT_AT_BOUNDS = (2, 14)


def edges_apart(one: Provenance, other: Provenance) -> str | None:
    """Why two runs' attacks had other gradients at the edges of the box; ``None`` if they had not.

    So it is where one of them met a network that is blind there, and their versions of PyTorch
    differ in the gradient of a clamp at its bounds.
    """
    if one.edges is None and other.edges is None:
        return None
    said = [run.versions.get("torch", "unknown") for run in (one, other)]
    known = [re.match(r"(\d+)\.(\d+)", version) for version in said]
    since = [None if m is None else (int(m[1]), int(m[2])) >= _NO_GRADIENT_AT_BOUNDS for m in known]
    if since[0] == since[1]:
        return None
    return (
        f"torch {said[0]} and {said[1]} differ in gradients at pixels of exactly 0 or 1, and the "
        "network clamps its input there"
    )


class Report(_Model, InNotebooks):
    """The result of an audit of one checkpoint under one threat model.

    Attributes:
        schema_version: version of the report's format.
        robaudit: version of robaudit.
        subject: the audited checkpoint.
        data: the audited examples.
        train_data: the training examples, where gaps were measured.
        threat: the threat model; ``None`` where nothing was attacked.
        measurements: all measurements, in the order in which they were made.
        warnings: warnings about the model or the data as a whole.
        provenance: seed, versions, device and other conditions of the run.
    """

    schema_version: Literal[1] = SCHEMA_VERSION
    robaudit: str
    subject: Subject
    data: Data
    train_data: Data | None = None
    threat: Threat | None
    measurements: list[Measurement]
    warnings: list[str] = Field(default_factory=list)
    provenance: Provenance
    _beside: Beside = PrivateAttr(default_factory=Beside)

    @model_validator(mode="after")
    def _within_bounds(self) -> Report:
        for measurement in self.measurements:
            _check_bounds(measurement)
        return self

    def __repr__(self) -> str:
        threat = "" if self.threat is None else f", {self.threat.norm} {self.threat.eps:.4g}"
        head = (
            f"{self.subject.source!r}, {self.data.name} {self.data.split} n={self.data.n}{threat}"
        )
        rows = [
            f"{m.name} {m.split}: "
            + (f"{m.value:.6g}" if m.value is not None else f"{m.status}, {m.reason}")
            for m in self.measurements
        ]
        hidden = len(rows) - _SHOWN
        more = [f"... {hidden} more measurements"] if hidden > 0 else []
        return wrapped("Report", [head, *rows[:_SHOWN], *more, f"{len(self.warnings)} warnings"])

    __str__ = __repr__

    def get(self, name: str, split: str | None = None) -> Measurement | None:
        """The measurement of a measure, or ``None`` if the report has none.

        Args:
            name: of the measure, such as ``accuracy.clean``.
            split: ``test``, ``train`` or ``gap``; by default the split that the measure belongs to:
                ``gap`` for gaps, the training split for PAC-Bayes bounds, else the audited split.

        Raises:
            UsageError: there is no measure of that name.
        """
        usual = find(name).split
        wanted = split or ("gap" if usual == "gap" else self.data.split)
        if split is None and usual == "train" and self.train_data is not None:
            wanted = self.train_data.split
        for measurement in self.measurements:
            if measurement.name == name and measurement.split == wanted:
                return measurement
        check_name(name, [measurement.name for measurement in self.measurements])
        return None

    @property
    def failed(self) -> list[Measurement]:
        """The measurements that could not be made."""
        return [measurement for measurement in self.measurements if measurement.status == "failed"]


Outcome = Literal["pass", "fail", "inconclusive"]
# Begins the reason of a rule that is inconclusive only because of doubts about its value.
IN_DOUBT: Final = "in doubt: "


class Suite(_Model):
    """What a gate's rules were checked on: the population of examples, and the threat model."""

    name: str
    data: Data
    threat: Threat


class Decision(_Model):
    """What a gate decided on one rule, and on what evidence.

    ``value`` is the estimate from the ``examples`` looked at, out of ``population``; ``interval``
    covers the population's value however often the gate looked. ``line`` is where the policy
    states the rule. What could not be measured is inconclusive, with its ``reason``; so is what
    would pass or leave open but for ``doubts`` of the value, unless the policy allows them.
    """

    metric: str
    suite: str
    rule: Literal["min", "max", "max_drop"]
    threshold: float
    outcome: Outcome
    severity: Literal["error", "warning"] = "error"
    sentence: str
    alpha: float = Field(gt=0, lt=1)
    value: float | None = None
    interval: Interval | None = None
    examples: Count | None = None
    population: Count | None = None
    baseline: float | None = None
    reason: str | None = None
    line: Count | None = None
    seconds: float | None = Field(default=None, ge=0)
    doubts: list[str] = Field(default_factory=list)


class Verdict(_Model):
    """Every rule of a policy decided for one checkpoint."""

    schema_version: Literal[1] = SCHEMA_VERSION
    robaudit: str
    subject: Subject
    policy: str
    policy_sha256: str
    suites: list[Suite]
    decisions: list[Decision]
    warnings: list[str] = Field(default_factory=list)
    provenance: Provenance

    @property
    def outcome(self) -> Outcome:
        """The worst of the rules of severity ``error``: fail, then inconclusive, then pass."""
        found = {rule.outcome for rule in self.decisions if rule.severity == "error"}
        return "fail" if "fail" in found else "inconclusive" if "inconclusive" in found else "pass"
