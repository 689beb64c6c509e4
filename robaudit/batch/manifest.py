"""The manifest: which models, on which data, within which threat models, measured how."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from robaudit.errors import UsageError
from robaudit.toml_file import checked, read_tables


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


Names = Annotated[list[str], BeforeValidator(_listed), Field(min_length=1)]


class Choices(BaseModel):
    """What may be said once for all models, or for some of them."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    preset: Literal["quick", "standard", "paper"] = "standard"
    data: Names = ["digits"]
    data_dir: str | None = None
    split: Literal["test", "train"] = "test"
    n: int | None = Field(None, ge=1)
    sample: bool = False
    gap: bool = True
    train_data: str | None = None
    threats: Names = ["usual"]
    arch: str | None = None
    normalize: str | None = None
    guess: bool = False
    weights: Literal["raw", "ema", "swa"] | None = None
    model_dir: str | None = None
    download: bool = False
    seed: int = 0
    precision: Literal["fp32", "bf16", "float64"] = "fp32"

    @model_validator(mode="after")
    def _one_training_set(self) -> Choices:
        if self.train_data is not None and len(self.data) > 1:
            raise ValueError("train_data is one data set's, but data names several")
        return self


class Models(Choices):
    """Some models, and what is said for them alone.

    ``files`` are paths and globs; the zoos' are names, ``*`` and ``?`` in RobustBench's standing
    for anything.
    """

    files: Names | None = None
    robustbench: Names | None = None
    timm: Names | None = None
    torchvision: Names | None = None
    exclude: Annotated[list[str], BeforeValidator(_listed)] = []
    member: str | None = None
    sha256: str | None = None
    trust_pickle: bool = False

    @model_validator(mode="after")
    def _names_models(self) -> Models:
        if not (self.files or self.robustbench or self.timm or self.torchvision):
            raise ValueError("names no model: give files, robustbench, timm or torchvision")
        return self


class Manifest(Choices):
    """The file as a whole; ``models`` are the tables ``[[models]]``."""

    models: Annotated[list[Models], Field(min_length=1)]


def read_manifest(path: Path) -> Manifest:
    """Read a manifest; its relative paths are relative to its folder, and what it says for all
    models is handed on to each table that does not say otherwise.

    Raises:
        UsageError: with the line, what is wrong with it.
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
    schema = Manifest.model_json_schema()
    for table in (schema, schema["$defs"]["Models"]):
        for name in _LISTS & table["properties"].keys():
            said = table["properties"][name]
            said["anyOf"] = [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]
            said.pop("type", None)
            said.pop("items", None)
            said.pop("minItems", None)
    return json.dumps(dialect | schema, indent=2)


_LISTS = {"data", "threats", "files", "robustbench", "timm", "torchvision", "exclude"}


def manifest_of(checkpoints: list[str], said: dict[str, Any]) -> Manifest:
    """The manifest that names these files, globs and zoos' models, all measured alike.

    Raises:
        UsageError: an option that cannot be meant.
    """
    from robaudit.checkpoints.sources import SCHEMES

    groups: list[dict[str, Any]] = []
    own = {name: said[name] for name in said if name in Choices.model_fields}
    rest = {name: said[name] for name in said if name not in own}
    for checkpoint in checkpoints:
        scheme, _, name = checkpoint.partition(":")
        group = {scheme: name} if scheme in SCHEMES and name else {"files": checkpoint}
        groups.append({**group, **rest})
    return _settled(Manifest.model_validate({**own, "models": groups}), Path.cwd())


def _settled(manifest: Manifest, folder: Path) -> Manifest:
    common = {name: getattr(manifest, name) for name in manifest.model_fields_set - {"models"}}
    groups = []
    for group in manifest.models:
        own = {name: getattr(group, name) for name in group.model_fields_set}
        try:
            whole = Models.model_validate({**common, **own})
        except ValidationError as error:  # each fits, but not both together
            said = error.errors()[0]["msg"].removeprefix("Value error, ")
            raise UsageError(f"a table [[models]] does not fit what stands above: {said}") from None
        groups.append(_anchored(whole, folder))
    return manifest.model_copy(update={"models": groups})


def _anchored(group: Models, folder: Path) -> Models:
    def path(text: str | None) -> str | None:
        return None if text is None else str(folder / Path(text).expanduser())

    def data(text: str | None) -> str | None:
        if text is not None and text.startswith("imagefolder:"):
            return f"imagefolder:{path(text.removeprefix('imagefolder:'))}"
        is_file = text is not None and text.lower().endswith((".npz", ".safetensors"))
        return path(text) if is_file else text

    arch = group.arch
    if arch is not None and ".py:" in arch:
        arch = path(arch)
    return group.model_copy(
        update={
            "files": None if group.files is None else [str(path(file)) for file in group.files],
            "data": [data(name) for name in group.data],
            "train_data": data(group.train_data),
            "data_dir": path(group.data_dir),
            "model_dir": path(group.model_dir),
            "arch": arch,
        }
    )
