"""The options that mean the same in every command: the fields of :mod:`robaudit.request`."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import typer
from pydantic import Field, ValidationError

from robaudit.cli.config_file import config_option
from robaudit.request import (
    CheckpointSpec,
    Count,
    DataSpec,
    Folder,
    Request,
    RunSpec,
    Spec,
    ThreatSpec,
    refusal,
)

FLOAT64_IS_OF_CURVATURE = (
    "--precision float64 is of traces and spectra: attacks search in fp32, as they are judged",
    "Give it to wci or hessian.",
)
DATA_PANEL, _RUN_PANEL, OUT_PANEL = "Data and threat", "Run", "Output"

Format = Literal["table", "json", "csv", "md"]


class OutputSpec(Spec):
    """What is printed and written."""

    out: Folder | None = Field(
        default=None,
        description="Write the report folder here (one folder each for several checkpoints).",
    )
    format: Format = Field(default="table", description="What is printed.")
    quiet: bool = Field(default=False, description="No progress, no notes.")


class Settings(Request, OutputSpec):
    """What the common options of a command say."""


Checkpoints = Annotated[
    list[str],
    typer.Argument(
        metavar="CKPT...",
        show_default=False,
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
    "arch": "NAME|module:factory|file.py:factory",
    "normalize": 'NAME|"m,m,m;s,s,s"|none',
    "member": "PATH",
    "sha256": "HEX",
    "data": "NAME|FILE|imagefolder:DIR",
    "train_data": "NAME|FILE",
    "eps": "NUMBER|8/255",
    "batch_size": "auto|N",
    "samples": "K",
    "straight_through": "MODULE",
    "state": "DIR",
    "out": "DIR",
}
_SPELLED = {"gap": ("--gap/--no-gap",), "quiet": ("--quiet", "-q")}
_AS_TEXT = ("eps", "batch_size")  # read by the field itself


def option(spec: type[Spec], name: str, panel: str | None = None) -> Any:
    """The type of a command's parameter that is this field."""
    field = spec.model_fields[name]
    type_ = str if name in _AS_TEXT else _type_of(field.annotation)
    flag = f"--{name.replace('_', '-')}"
    return Annotated[
        type_ if field.default is not None else type_ | None,
        typer.Option(
            *_SPELLED.get(name, (flag,)),
            metavar=_METAVARS.get(name),
            min=1 if _alternative(field.annotation) == Count else None,
            case_sensitive=False,
            help=field.description,
            show_default=not (field.default is None or field.default == ()),
            rich_help_panel=panel,
        ),
    ]


def _alternative(annotation: Any) -> Any:
    """The first alternative of a union."""
    union = get_origin(annotation) in (Union, UnionType)
    return next(a for a in get_args(annotation) if a is not NoneType) if union else annotation


def _type_of(annotation: Any) -> Any:
    """The type that typer reads it as."""
    type_ = _alternative(annotation)
    if get_origin(type_) is Annotated:
        type_ = get_args(type_)[0]
    return list[str] if get_origin(type_) is tuple else type_


def _parameters() -> dict[str, inspect.Parameter]:
    """The common options, in the order of the help."""
    made: dict[str, inspect.Parameter] = {}

    def add(name: str, annotation: Any, default: Any) -> None:
        kind = inspect.Parameter.KEYWORD_ONLY
        default = None if default == () else default
        made[name] = inspect.Parameter(name, kind, default=default, annotation=annotation)

    for spec, panel in _PANELS:
        for name, field in spec.model_fields.items():
            if name == "quiet":
                add("json", Json, False)
            add(name, option(spec, name, panel), field.default)
        if spec is RunSpec:
            add("config", Path | None, None)  # its option is made for each command
    return made


_COMMON = _parameters()


def with_settings(
    omit: frozenset[str] = frozenset(), **defaults: Any
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the common options, handed to it as its ``settings``.

    Args:
        omit: options that this command does not have.
        defaults: defaults that differ here.
    """

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        own = inspect.signature(function, eval_str=True).parameters
        taken = [
            p.replace(default=defaults.get(p.name, p.default))
            for p in _COMMON.values()
            if p.name not in omit
        ]

        def run(**given: Any) -> None:
            settings = settings_of({p.name: given.pop(p.name) for p in taken})
            function(settings=settings, **given)

        parameters = [
            *(
                p.replace(kind=inspect.Parameter.KEYWORD_ONLY)
                for p in own.values()
                if p.name != "settings"
            ),
            *taken,
        ]
        if "config" not in omit:
            config = config_option(parameters, _COMMON)
            parameters = [
                p.replace(annotation=config) if p.name == "config" else p for p in parameters
            ]
        run.__name__, run.__doc__ = function.__name__, function.__doc__
        run.__annotations__ = {p.name: p.annotation for p in parameters}
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        return run

    return decorate


def settings_of(values: dict[str, Any]) -> Settings:
    """The settings that these options give.

    Raises:
        UsageError: a value that cannot be meant.
    """
    plain = {name: value for name, value in values.items() if name not in ("config", "json")}
    if "straight_through" in plain:
        plain["straight_through"] = tuple(plain["straight_through"] or ())
    if values.get("json"):
        plain["format"] = "json"
    try:
        return Settings(**plain)
    except ValidationError as error:
        raise refusal(error) from None
