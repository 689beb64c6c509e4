"""A gate's policy: a TOML file of thresholds, checked before any work begins. No torch here."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, get_args

from pydantic import Field

from robaudit.errors import UsageError, did_you_mean
from robaudit.measures import find, ruled
from robaudit.request import (
    CheckpointSpec,
    Count,
    ExamplesSpec,
    PresetName,
    Spec,
    ThreatSpec,
    UnionSpec,
)
from robaudit.schema import AnyCaseNorm
from robaudit.toml_file import SECTIONS, Place, Tables, checked, read_tables

Kind = Literal["min", "max", "max_drop"]
Severity = Literal["error", "warning"]
Doubts = Literal["inconclusive", "allow"]

_Share = Annotated[float, Field(gt=0, le=0.3)]


class MetricTable(Spec):
    """``[gate.metrics."NAME"]``: the thresholds of one number."""

    min: float | None = Field(None, description="the least value that passes")
    max: float | None = Field(None, description="the largest value that passes")
    max_drop: float | None = Field(
        None, ge=0, lt=1, description="the most that an accuracy may be below the baseline's"
    )
    alpha: _Share | None = Field(None, description="the most often a decision may be wrong")
    min_n: Count | None = Field(None, description="the fewest examples to look at")
    severity: Severity = Field("error", description="whether a failure fails the gate")


class SuiteSpec(ExamplesSpec, ThreatSpec, UnionSpec):
    """Data, threat model, and how they are attacked."""

    norm: AnyCaseNorm = Field(default="linf", description="Norm of the perturbation.")
    seed: Annotated[int, Field(ge=0)] = Field(default=0, description="of order and attacks")
    alpha: _Share = Field(default=0.05, description="the most often a decision may be wrong")
    max_n: Count | None = Field(default=None, description="the most examples to look at")
    preset: PresetName = Field(
        default="standard",
        description="whose settings PGD and everything that is not an accuracy have",
    )
    doubts: Doubts = Field(
        default="inconclusive",
        description="whether a number that there are doubts about decides a rule",
    )


class SuiteTable(SuiteSpec):
    """``[gate.suites.NAME]``: a suite, and what is asked of it."""

    metrics: dict[str, MetricTable] = Field(default_factory=dict)


class GateTable(SuiteTable, CheckpointSpec):
    """``[gate]``: one suite, defaults of further ones, and how checkpoints are opened."""

    suites: dict[str, SuiteTable] = Field(default_factory=dict)


class PolicyFile(Spec):
    """The whole file."""

    gate: GateTable


@dataclass(frozen=True)
class Rule:
    """One threshold; ``line`` is where the policy states it."""

    metric: str
    kind: Kind
    threshold: float
    alpha: float
    min_n: int
    severity: Severity
    line: int | None


class SuitePolicy(SuiteSpec):
    """The rules on one set of examples under one threat model; ``eps`` ``None`` is the usual."""

    name: str
    line: int | None
    rules: tuple[Rule, ...] = ()


@dataclass(frozen=True)
class Policy:
    """A file's rules, suite by suite; and how it says that checkpoints are opened."""

    path: str
    sha256: str
    suites: tuple[SuitePolicy, ...]
    checkpoint: CheckpointSpec


def read_policy(path: Path) -> Policy:
    """Read a policy and check it.

    Raises:
        UsageError: it is no policy, or asks for what cannot be; with the line.
    """
    tables = read_tables(path).without(SECTIONS)
    gate = checked(PolicyFile, tables).gate
    suites = []
    if gate.metrics:
        suites.append(_suite("default", gate, gate, tables, ("gate",)))
    for name, table in gate.suites.items():
        place: Place = ("gate", "suites", name)
        if name == "default" and gate.metrics:
            raise tables.refusal(place, "the suite 'default' is the one of [gate.metrics]")
        if not table.metrics:
            raise tables.refusal(place, f"the suite {name!r} has no rule")
        suites.append(_suite(name, table, gate, tables, place))
    if not suites:
        raise UsageError(
            f"{path}: the policy has no rule",
            'Add one: [gate.metrics."accuracy.autoattack"] with min = 0.4; or begin with '
            "robaudit gate --init REPORT.",
        )
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    opened = CheckpointSpec(**{**gate.only(CheckpointSpec), "arch": _found(gate.arch, path)})
    return Policy(str(path), digest, tuple(suites), opened)


def _found(arch: str | None, policy: Path) -> str | None:
    """The user's code; a file is looked for beside the policy first."""
    place, _, name = (arch or "").rpartition(":")
    beside = policy.absolute().parent / place
    return f"{beside}:{name}" if place.endswith(".py") and beside.is_file() else arch


def policy_schema() -> str:
    """The JSON Schema (draft 2020-12) of a policy."""
    schema = PolicyFile.model_json_schema()
    for name in ("SuiteTable", "GateTable"):
        metrics = schema["$defs"][name]["properties"]["metrics"]
        metrics["propertyNames"] = {"enum": list(ruled())}
    schema["properties"] |= {name: {"type": "object"} for name in SECTIONS}
    dialect = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "policy"}
    return json.dumps(dialect | schema, indent=2)


def _suite(
    name: str, table: SuiteTable, gate: GateTable, tables: Tables, place: Place
) -> SuitePolicy:
    said = {
        field: getattr(one, field)
        for one in (gate, table)
        for field in SuiteSpec.model_fields.keys() & one.model_fields_set
    }
    if "data" not in said:
        raise tables.refusal(
            place, f"no data for the suite {name!r}", 'Add data = "cifar10", a file or a folder.'
        )
    suite = SuitePolicy(name=name, line=tables.line(place), **said)
    rules = [
        rule
        for metric, rules_of in table.metrics.items()
        for rule in _rules(metric, rules_of, suite, tables, (*place, "metrics", metric))
    ]
    return suite.changed(rules=tuple(rules))


def _rules(
    name: str, table: MetricTable, suite: SuitePolicy, tables: Tables, place: Place
) -> list[Rule]:
    metrics = ruled()
    metric = metrics.get(name)
    if find(name).error_bar == "none":
        raise tables.refusal(
            place, f"{name} has no error bar over examples, so that no rule on it could be decided"
        )
    if metric is None:
        raise tables.refusal(
            place,
            f"unknown metric {name!r}{did_you_mean(name, list(metrics))}",
            f"Metrics: {', '.join(metrics)}.",
        )
    given: dict[Kind, float] = {
        kind: value for kind in get_args(Kind) if (value := getattr(table, kind)) is not None
    }
    if not given:
        raise tables.refusal(place, f"{name} has no min, max or max_drop")
    for kind, value in given.items():
        where = (*place, kind)
        if kind == "max_drop":
            if not metric.stages:
                raise tables.refusal(
                    where, f"max_drop is for accuracies; {name} is not one", "Give max or min."
                )
            continue
        low, high = metric.low, metric.high
        if not low <= value <= high:
            percents = metric.stages and 1 < value <= 100
            advice = f"Write {value / 100:g} for {value:g} %." if percents else None
            limits = f"between {low:g} and {high:g}" if high < float("inf") else f"at least {low:g}"
            raise tables.refusal(where, f"{name} is {limits}: {kind} = {value:g} cannot be", advice)
    if "min" in given and "max" in given and given["min"] > given["max"]:
        raise tables.refusal(
            (*place, "max"),
            f"nothing can be at least {given['min']:g} and at most {given['max']:g}",
        )
    if table.min_n is not None and not metric.stages:
        raise tables.refusal(
            (*place, "min_n"), f"min_n is for accuracies; {name} is measured on all its examples"
        )
    most = min((m for m in (suite.max_n, suite.n) if m is not None), default=None)
    if table.min_n is not None and most is not None and table.min_n > most:
        raise tables.refusal(
            (*place, "min_n"), f"min_n = {table.min_n}, but at most {most} examples are looked at"
        )
    return [
        Rule(
            metric=name,
            kind=kind,
            threshold=value,
            alpha=table.alpha or suite.alpha,
            min_n=table.min_n or 1,
            severity=table.severity,
            line=tables.line((*place, kind)),
        )
        for kind, value in given.items()
    ]
