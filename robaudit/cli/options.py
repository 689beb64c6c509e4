"""The options that mean the same in every command: the fields of :mod:`robaudit.request`."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import typer
from pydantic import Field
from pydantic.fields import FieldInfo

from robaudit.checkpoints.files.matching import matching
from robaudit.cli.completion import Complete, data_sets, probes, zoo_names
from robaudit.cli.config_file import Config
from robaudit.datasets import DATA_SETS
from robaudit.errors import UsageError
from robaudit.request import (
    CheckpointSpec,
    DataSpec,
    Folder,
    Request,
    RunSpec,
    Spec,
    ThreatSpec,
    made,
)

FLOAT64_IS_OF_CURVATURE = (
    "--precision float64 is of traces and spectra: attacks search in fp32, as they are judged",
    "Give it to wci or hessian.",
)
DATA_PANEL, _RUN_PANEL, OUT_PANEL = "Data and threat", "Run", "Output"

Format = Literal["table", "json", "csv", "md", "latex"]


class OutputSpec(Spec):
    """What is printed and written."""

    out: Folder | None = Field(
        default=None,
        description="Write the report folder here (one folder each for several checkpoints).",
    )
    on_result: str | None = Field(
        default=None,
        description="Run this command for every report, with its folder as the last argument; "
        "needs --out.",
    )
    format: Format = Field(default="table", description="What is printed.")
    quiet: bool = Field(default=False, description="No progress, no notes.")


class Settings(Request, OutputSpec):
    """What the common options of a command say."""


def checkpoints_named(names: list[str] | None) -> list[str]:
    """The names, with patterns such as ``runs/*.pt`` replaced by the files that they match.

    Raises:
        UsageError: something else in a checkpoint's place.
    """
    found: list[str] = []
    for name in names or []:
        there = Path(name).exists()
        if not there and (name in DATA_SETS or name.endswith(".npz")):
            raise UsageError(f"{name} is data, no checkpoint", f"Name it with --data {name}.")
        if there and name.endswith(".toml"):
            raise UsageError(
                f"{name} is a file of options, no checkpoint",
                f"A policy is named with --policy {name}, options with --config {name}; a manifest "
                f"is run by robaudit batch {name} --out DIR.",
            )
        if there and _is_report(Path(name)):
            raise UsageError(
                f"{name} is a report, no checkpoint", f"robaudit report {name} shows it."
            )
        pattern = not there and ":" not in name and set("*?[") & set(name)
        found += (matching(name) if pattern else []) or [name]
    return found


def _is_report(path: Path) -> bool:
    """Whether it is a report or its folder; a network's folder may keep its report, too."""
    if path.is_dir():
        return (path / "report.json").exists() and not (path / "config.json").exists()
    return path.name == "report.json"


Checkpoints = Annotated[
    list[str],
    typer.Argument(
        metavar="CKPT...",
        show_default=False,
        callback=checkpoints_named,
        autocompletion=zoo_names,
        help="Checkpoint files (torch.save, safetensors, TorchScript, torch.export), Hugging Face "
        "folders, robustbench:cifar10/Linf/NAME, timm:NAME or torchvision:NAME.",
    ),
]
Json = Annotated[
    bool,
    typer.Option(
        "--json", help="The report on stdout and nothing else.", rich_help_panel=OUT_PANEL
    ),
]

_PANELS: tuple[tuple[type[Spec], str], ...] = (
    (CheckpointSpec, "Model"),
    (DataSpec, DATA_PANEL),
    (ThreatSpec, DATA_PANEL),
    (RunSpec, _RUN_PANEL),
    (OutputSpec, OUT_PANEL),
)
_METAVARS = {
    "also": "PROBE",
    "union": "NORM:EPS,NORM:EPS...",
    "arch": "NAME|module:factory|file.py:factory",
    "normalize": 'NAME|"m,m,m;s,s,s"|none',
    "member": "PATH",
    "sha256": "HEX",
    "clean_data": "NAME|FILE",
    "corruption": "NAME,NAME...",
    "severity": "N,N...",
    "reference": "FILE",
    "data": "NAME|FILE|imagefolder:DIR",
    "train_data": "NAME|FILE",
    "eps": "NUMBER|8/255",
    "batch_size": "auto|N",
    "samples": "K",
    "straight_through": "MODULE",
    "state": "DIR",
    "out": "DIR",
    "on_result": "COMMAND",
    "track": "wci,flatness,robust",
    "layers": "all|NAME,NAME...",
    "memory": "BYTES|2GB",
    "xi": "X[,X...]",
    "worst_xi": "X[,X...]",
    "surrogate": "CKPT",
    "surrogate_arch": "NAME",
    "surrogate_normalize": "NAME",
    "verify": "FILE.safetensors",
    "policy": "FILE",
    "baseline": "DIR",
    "write_baseline": "DIR",
    "init": "DIR",
    "junit": "FILE",
    "sarif": "FILE",
    "summary": "FILE",
    "timeout": "SECONDS",
    "address": "HOST:PORT|auto",
}
_COMPLETED: dict[str, Complete] = {
    "data": data_sets,
    "train_data": data_sets,
    "clean_data": data_sets,
    "also": probes,
}
_SPELLED = {"gap": ("--gap/--no-gap",), "quiet": ("--quiet", "-q"), "reach": ("--range",)}
_AS_TEXT = ("eps", "batch_size")  # read by the field itself


def option(spec: type[Spec], name: str, panel: str | None = None) -> Any:
    """The type of a command's parameter that is this field."""
    field = spec.model_fields[name]
    type_ = str if name in _AS_TEXT else _type_of(field.annotation)
    flag = f"--{name.rstrip('_').replace('_', '-')}"
    return Annotated[
        type_ if field.default is not None else type_ | None,
        typer.Option(
            *_SPELLED.get(name, (flag,)),
            metavar=_METAVARS.get(name),
            autocompletion=_COMPLETED.get(name),
            min=_limit(field, "ge"),
            max=_limit(field, "le"),
            case_sensitive=False,
            help=field.description,
            show_default=not (field.default is None or field.default == ()),
            rich_help_panel=panel,
        ),
    ]


def _limit(field: FieldInfo, name: str) -> Any:
    """The least or the largest value of a number."""
    notes = [*field.metadata, *getattr(_alternative(field.annotation), "__metadata__", ())]
    limits = [limit for note in notes for limit in getattr(note, "metadata", (note,))]
    return next((getattr(limit, name) for limit in limits if hasattr(limit, name)), None)


def _alternative(annotation: Any) -> Any:
    """The first alternative of a union."""
    union = get_origin(annotation) in (Union, UnionType)
    return next(a for a in get_args(annotation) if a is not NoneType) if union else annotation


def _type_of(annotation: Any) -> Any:
    """The type that typer reads it as."""
    type_ = _alternative(annotation)
    if get_origin(type_) is Annotated:
        type_ = get_args(type_)[0]
    several: Any = list
    return several[get_args(type_)[0]] if get_origin(type_) is tuple else type_


def _parameter(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    kind = inspect.Parameter.KEYWORD_ONLY
    return inspect.Parameter(name, kind, default=default, annotation=annotation)


def _parameters(spec: type[Spec], panel: str | None) -> list[inspect.Parameter]:
    """A parameter for each field."""
    return [
        _parameter(name, option(spec, name, panel), None if field.default == () else field.default)
        for name, field in spec.model_fields.items()
    ]


def _common() -> dict[str, inspect.Parameter]:
    """The common options, in the order of the help."""
    made = [p for spec, panel in _PANELS for p in _parameters(spec, panel)]
    at = [p.name for p in made].index("quiet")
    made.insert(at, _parameter("json", Json, False))
    at = [p.name for p in made].index("out")
    made.insert(at, _parameter("config", Config, None))
    return {p.name: p for p in made}


_COMMON = _common()


def with_settings(
    omit: frozenset[str] = frozenset(), **defaults: Any
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the common options, handed to it as its ``settings``.

    A parameter ``name: Annotated[SPEC, PANEL]`` stands for the fields of that model.

    Args:
        omit: options that this command does not have.
        defaults: defaults that differ here.
    """

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        own: list[inspect.Parameter] = []
        groups: dict[str, type[Spec]] = {}
        for p in inspect.signature(function, eval_str=True).parameters.values():
            kind, *notes = get_args(p.annotation) or (p.annotation,)
            if inspect.isclass(kind) and issubclass(kind, Spec) and notes:
                groups[p.name] = kind
                fields = _parameters(kind, notes[0])
                own += [f.replace(default=defaults.get(f.name, f.default)) for f in fields]
            elif p.name != "settings":
                own.append(p.replace(kind=inspect.Parameter.KEYWORD_ONLY))
        taken = [
            p.replace(default=defaults.get(p.name, p.default))
            for p in _COMMON.values()
            if p.name not in omit
        ]

        def run(**given: Any) -> None:
            settings = settings_of({p.name: given.pop(p.name) for p in taken})
            for name, spec in groups.items():
                given[name] = made(spec, _read(spec, {f: given.pop(f) for f in spec.model_fields}))
            function(settings=settings, **given)

        parameters = [*own, *taken]
        run.__name__, run.__doc__ = function.__name__, function.__doc__
        run.__annotations__ = {p.name: p.annotation for p in parameters}
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        return run

    return decorate


def settings_of(values: dict[str, Any]) -> Settings:
    """The settings that these options give; see :func:`robaudit.request.made`."""
    plain = {name: value for name, value in values.items() if name not in ("config", "json")}
    if values.get("json"):
        plain["format"] = "json"
    return made(Settings, _read(Settings, plain))


def _read(spec: type[Spec], values: dict[str, Any]) -> dict[str, Any]:
    """With tuples where the model has them: typer reads lists, or nothing."""
    several = {name for name in values if spec.model_fields[name].default == ()}
    return values | {name: tuple(values[name] or ()) for name in several}
