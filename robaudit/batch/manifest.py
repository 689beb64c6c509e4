"""The manifest of a batch: the models, data, threat models and what is measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, ValidationError, model_validator

from robaudit.datasets import CORRUPTED_FOLDER
from robaudit.errors import UsageError
from robaudit.request import CheckpointSpec, DataSpec, PlanSpec, Precision, ThreatSpec, refusal
from robaudit.toml_file import checked, read_tables
from robaudit.types import parse_norm


def _listed(value: Any) -> Any:
    """One value stands for a list of one."""
    if isinstance(value, str | dict):
        return (value,)
    return tuple(value) if isinstance(value, list) else value


def _some(value: Any) -> Any:
    if value in ([], ()):
        raise ValueError("the list is empty")
    return _listed(value)


NamesOrNone = Annotated[
    tuple[str, ...], BeforeValidator(_listed, json_schema_input_type=str | list[str])
]
Names = Annotated[tuple[str, ...], BeforeValidator(_some, json_schema_input_type=str | list[str])]


def _threat(value: Any) -> Any:
    """``"linf 8/255"``, ``"linf"`` for the usual radius or ``"usual"``, as a table would say it."""
    if not isinstance(value, str):
        return value
    norm, _, eps = value.strip().partition(" ")
    if norm == "usual":
        return ThreatSpec()
    try:
        return ThreatSpec.model_validate({"norm": parse_norm(norm), "eps": eps.strip() or None})
    except UsageError as error:
        raise ValueError(error.message) from error
    except ValidationError as error:
        raise ValueError(refusal(error).message) from error


Threat = Annotated[ThreatSpec, BeforeValidator(_threat, json_schema_input_type=str | ThreatSpec)]
Threats = Annotated[
    tuple[Threat, ...],
    BeforeValidator(_some, json_schema_input_type=str | ThreatSpec | list[str | ThreatSpec]),
]


class Choices(CheckpointSpec, DataSpec, PlanSpec):
    """Keys that a manifest may give for all models, or for the models of one table."""

    also: NamesOrNone = ()
    data: Names = ("digits",)  # type: ignore[assignment]  # several, where a command takes one
    gap: bool = True
    threats: Threats = (ThreatSpec(),)
    seed: int = 0
    precision: Precision = "auto"
    group: str | None = None
    hyperparameters: dict[str, bool | int | float | str] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _one_training_set(self) -> Choices:
        if self.train_data is not None and len(self.data) > 1:
            raise ValueError("train_data is one data set's, but data names several")
        return self


class Models(Choices):
    """A table ``[[models]]``: some models, and keys for them alone.

    ``files`` are paths and globs, the others names in zoos; in RobustBench's, ``*`` and ``?`` are
    wildcards.
    """

    files: Names | None = None
    robustbench: Names | None = None
    timm: Names | None = None
    torchvision: Names | None = None
    exclude: NamesOrNone = ()

    @model_validator(mode="after")
    def _names_models(self) -> Models:
        if not (self.files or self.robustbench or self.timm or self.torchvision):
            raise ValueError("names no model: give files, robustbench, timm or torchvision")
        return self


class Manifest(Choices):
    """A whole manifest; ``models`` are the tables ``[[models]]``."""

    models: Annotated[list[Models], Field(min_length=1)]


def read_manifest(path: Path) -> Manifest:
    """Read a manifest.

    Relative paths are relative to its folder. Each table gets the keys that are given for all
    models, but for those of its own.

    Raises:
        UsageError: it is not valid; the message has the line.
    """
    tables = read_tables(path)
    if "models" not in tables.content:
        raise UsageError(
            f"{path} has no table [[models]]",
            'Name the models: [[models]], and below it files = "runs/*.pt".',
        )
    return _settled(checked(Manifest, tables), path.expanduser().absolute().parent)


def manifest_schema() -> str:
    """The JSON Schema (draft 2020-12) of a manifest."""
    dialect = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "manifest"}
    return json.dumps(dialect | Manifest.model_json_schema(), indent=2)


def manifest_of(checkpoints: list[str], **said: Any) -> Manifest:
    """A manifest of these files, globs and zoos' models, with the same keys for all.

    Raises:
        UsageError: a value is not valid.
    """
    from robaudit.checkpoints.sources import SCHEMES

    groups = []
    for checkpoint in checkpoints:
        scheme, _, name = checkpoint.partition(":")
        zoo = scheme in SCHEMES and bool(name)
        groups.append({scheme: name} if zoo else {"files": checkpoint})
    return _settled(Manifest.model_validate({**said, "models": groups}), Path.cwd())


def _settled(manifest: Manifest, folder: Path) -> Manifest:
    common = {name: getattr(manifest, name) for name in manifest.model_fields_set - {"models"}}
    groups = []
    for group in manifest.models:
        own = {name: getattr(group, name) for name in group.model_fields_set}
        try:
            whole = Models.model_validate({**common, **own})
        except ValidationError as error:  # each fits, but not both together
            said = error.errors()[0]["msg"].removeprefix("Value error, ")
            raise UsageError(f"a table [[models]] does not fit the keys above it: {said}") from None
        groups.append(_anchored(whole, folder))
    return manifest.model_copy(update={"models": groups})


def _anchored(group: Models, folder: Path) -> Models:
    def path(text: str | Path) -> str:
        return str(folder / Path(text).expanduser())

    def place(path: Path | None) -> Path | None:
        return None if path is None else folder / path.expanduser()

    def data(text: str | None) -> str | None:
        for kind in ("imagefolder:", CORRUPTED_FOLDER):
            if text is not None and text.startswith(kind):
                return f"{kind}{path(text.removeprefix(kind))}"
        is_file = text is not None and text.lower().endswith((".npz", ".safetensors"))
        return path(text) if text is not None and is_file else text

    arch = group.arch
    if arch is not None and ".py:" in arch:
        arch = path(arch)
    return group.model_copy(
        update={
            "files": None if group.files is None else [path(file) for file in group.files],
            "data": [data(name) for name in group.data],
            "train_data": data(group.train_data),
            "data_dir": place(group.data_dir),
            "model_dir": place(group.model_dir),
            "arch": arch,
        }
    )
