"""A gate's policy: a TOML file of thresholds, checked before any work begins. No torch here."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field

from robaudit.errors import UsageError
from robaudit.measures import find, ruled
from robaudit.schema import AnyCaseNorm
from robaudit.toml_file import Place, Tables, checked, guess, read_tables
from robaudit.types import Norm, parse_eps

Kind = Literal["min", "max", "max_drop"]
Severity = Literal["error", "warning"]
Doubts = Literal["inconclusive", "allow"]

_Share = Annotated[float, Field(gt=0, le=0.3)]
_Count = Annotated[int, Field(ge=1)]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class MetricTable(_Table):
    """``[gate.metrics."NAME"]``: the thresholds of one number."""

    min: float | None = Field(None, description="the least value that passes")
    max: float | None = Field(None, description="the largest value that passes")
    max_drop: float | None = Field(
        None, ge=0, lt=1, description="the most that an accuracy may be below the baseline's"
    )
    alpha: _Share | None = Field(None, description="the most often a decision may be wrong")
    min_n: _Count | None = Field(None, description="the fewest examples to look at")
    severity: Severity = Field("error", description="whether a failure fails the gate")


class SuiteTable(_Table):
    """``[gate.suites.NAME]``: data, threat model, and what is asked of them."""

    data: str | None = Field(None, description="as for --data")
    split: Literal["test", "train"] | None = Field(None, description="test unless given")
    n: _Count | None = Field(None, description="the first n examples; all unless given")
    norm: AnyCaseNorm | None = Field(None, description="linf unless given")
    eps: float | str | None = Field(None, description="a number or 8/255; the usual one if left")
    seed: Annotated[int, Field(ge=0)] | None = Field(None, description="of order and attacks")
    alpha: _Share | None = Field(None, description="0.05 unless given")
    max_n: _Count | None = Field(None, description="the most examples to look at")
    preset: Literal["quick", "standard", "paper"] | None = Field(
        None, description="whose settings PGD and everything that is not an accuracy have"
    )
    doubts: Doubts | None = Field(
        None, description="whether a number that there are doubts about decides a rule"
    )
    metrics: dict[str, MetricTable] = Field(default_factory=dict)


class GateTable(SuiteTable):
    """``[gate]``: one suite, and what further ones do not say otherwise."""

    arch: str | None = Field(None, description="as for --arch, of every checkpoint gated")
    normalize: str | None = Field(None, description="as for --normalize, likewise")
    guess: bool = Field(
        False, description="true: decide on the likeliest network where the data does not tell"
    )
    suites: dict[str, SuiteTable] = Field(default_factory=dict)


class PolicyFile(_Table):
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


@dataclass(frozen=True)
class SuitePolicy:
    """The rules on one set of examples under one threat model; ``eps`` ``None`` is the usual."""

    name: str
    data: str
    split: Literal["test", "train"]
    n: int | None
    norm: Norm
    eps: float | None
    seed: int
    max_n: int | None
    preset: str
    doubts: Doubts
    rules: tuple[Rule, ...]
    line: int | None


@dataclass(frozen=True)
class Policy:
    """A file's rules, suite by suite; and what it says of the network, which is one for all."""

    path: str
    sha256: str
    suites: tuple[SuitePolicy, ...]
    arch: str | None = None
    normalize: str | None = None
    guess: bool = False


def read_policy(path: Path) -> Policy:
    """Read a policy and check it.

    Raises:
        UsageError: it is no policy, or asks for what cannot be; with the line.
    """
    tables = read_tables(path)
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
    return Policy(
        str(path), digest, tuple(suites), _found(gate.arch, path), gate.normalize, gate.guess
    )


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
    dialect = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "policy"}
    return json.dumps(dialect | schema, indent=2)


def _suite(
    name: str, table: SuiteTable, gate: GateTable, tables: Tables, place: Place
) -> SuitePolicy:
    def said(key: str, default: Any = None) -> Any:
        own = getattr(table, key)
        inherited = getattr(gate, key) if own is None else own
        return default if inherited is None else inherited

    def line_of(key: str) -> Place:
        return (*place, key) if getattr(table, key) is not None else ("gate", key)

    data = said("data")
    if data is None:
        raise tables.refusal(
            place, f"no data for the suite {name!r}", 'Add data = "cifar10", a file or a folder.'
        )
    eps = said("eps")
    if eps is not None:
        try:
            eps = parse_eps(eps)
        except UsageError as error:
            raise tables.refusal(line_of("eps"), error.message, error.advice) from None
        if not 0 < eps < float("inf"):
            raise tables.refusal(line_of("eps"), f"eps must be positive, not {eps:g}")
    rules = [
        rule
        for metric, rules_of in table.metrics.items()
        for rule in _rules(metric, rules_of, said, tables, (*place, "metrics", metric))
    ]
    return SuitePolicy(
        name=name,
        data=data,
        split=said("split", "test"),
        n=said("n"),
        norm=said("norm", get_args(Norm)[0]),
        eps=eps,
        seed=said("seed", 0),
        max_n=said("max_n"),
        preset=said("preset", "standard"),
        doubts=said("doubts", "inconclusive"),
        rules=tuple(rules),
        line=tables.line(place),
    )


def _rules(name: str, table: MetricTable, said: Any, tables: Tables, place: Place) -> list[Rule]:
    metrics = ruled()
    metric = metrics.get(name)
    if find(name).error_bar == "none":
        raise tables.refusal(
            place, f"{name} has no error bar over examples, so that no rule on it could be decided"
        )
    if metric is None:
        raise tables.refusal(
            place, f"unknown metric {name!r}{guess(name, list(metrics))}",
            f"Metrics: {', '.join(metrics)}.",
        )  # fmt: skip
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
    most = min((m for m in (said("max_n"), said("n")) if m is not None), default=None)
    if table.min_n is not None and most is not None and table.min_n > most:
        raise tables.refusal(
            (*place, "min_n"), f"min_n = {table.min_n}, but at most {most} examples are looked at"
        )
    alpha = said("alpha", 0.05) if table.alpha is None else table.alpha
    return [
        Rule(
            metric=name,
            kind=kind,
            threshold=value,
            alpha=alpha,
            min_n=table.min_n or 1,
            severity=table.severity,
            line=tables.line((*place, kind)),
        )
        for kind, value in given.items()
    ]
