"""What a checkpoint states about itself: safetensors metadata, or a small file beside it. No torch.

The author of the file wrote this too, so it may name an architecture that robaudit has, but never
code to run: only the user's ``--arch`` can do that.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from robaudit.checkpoints.files.container import Container
from robaudit.checkpoints.files.display import shown
from robaudit.checkpoints.files.hf_folder import Folder, architecture_of, normalization_of
from robaudit.errors import CheckpointError

_KEYS = ("architecture", "normalization", "kwargs")
_MAX_BYTES = 1 << 20
_MAX_TEXT = 200
# Libraries' networks; whatever else has a colon is code.
_LIBRARIES = ("timm:", "torchvision:")
_NAME = re.compile(r"[\w.-]+")


@dataclass(frozen=True)
class Statement:
    """The architecture and normalisation a checkpoint claims, and where it says so."""

    where: str
    architecture: str | None = None
    normalization: str | None = None
    kwargs: Mapping[str, int | str] = field(default_factory=dict)


def statement_of(container: Container) -> Statement | None:
    """What the checkpoint says about itself: its sidecar file, else its metadata, else nothing.

    A sidecar is ``<file>.toml`` or ``<file>.json`` with the keys ``architecture``,
    ``normalization`` and ``kwargs`` (the architecture's own arguments), all optional. Metadata
    has ``robaudit.architecture`` and ``robaudit.normalization``. A Hugging Face folder says it in
    its configuration.

    Raises:
        CheckpointError: the sidecar is not readable or has other keys.
    """
    path = container.path if container.path.name else container.path.resolve()
    for suffix in (".toml", ".json") if path.name else ():
        beside = path.with_name(path.name + suffix)
        if beside.is_file():
            return _from_sidecar(beside, suffix)
    said = {key: container.metadata.get(f"robaudit.{key}") for key in _KEYS[:2]}
    if not any(said.values()):
        return None if container.folder is None else _from_folder(container.folder)
    statement = Statement("the file's metadata", said["architecture"], said["normalization"])
    return _checked(statement, shown(container.path, 200))


def _from_folder(folder: Folder) -> Statement | None:
    architecture, normalization = architecture_of(folder), normalization_of(folder)
    if architecture is None and normalization is None:
        return None
    return Statement("the folder's configuration", architecture, normalization)


def _from_sidecar(beside: Path, suffix: str) -> Statement:
    name = shown(beside, 200)
    try:
        if beside.stat().st_size > _MAX_BYTES:
            raise ValueError(f"it has more than {_MAX_BYTES} bytes")
        text = beside.read_text(encoding="utf-8")
        content: Any = tomllib.loads(text) if suffix == ".toml" else json.loads(text)
    except (ValueError, OSError, RecursionError) as error:
        raise CheckpointError(
            f"{name} cannot be read: {shown(error, 200)}", "Correct or remove it."
        ) from None
    if not isinstance(content, dict) or not set(content) <= set(_KEYS):
        raise CheckpointError(
            f"{name} has unknown entries", f"It may hold {', '.join(_KEYS[:2])} and {_KEYS[2]}."
        )
    texts = [content.get(key) for key in _KEYS[:2]]
    kwargs = content.get("kwargs", {})
    if (
        any(text is not None and not isinstance(text, str) for text in texts)
        or not isinstance(kwargs, dict)
        or not all(map(_is_argument, kwargs.values()))
    ):
        raise CheckpointError(
            f"{name}: architecture and normalization are text, kwargs a table of whole numbers "
            "and short texts"
        )
    return _checked(Statement(beside.name, texts[0], texts[1], kwargs), name)


def _is_argument(value: Any) -> bool:
    return type(value) is int or (isinstance(value, str) and len(value) <= _MAX_TEXT)


def _checked(statement: Statement, name: str) -> Statement:
    architecture = statement.architecture
    if architecture and _names_code(architecture):
        raise CheckpointError(
            f"{name}: {statement.where} names code as its architecture: {shown(architecture)}",
            "Where you trust it, give it yourself with --arch.",
        )
    return statement


def _names_code(architecture: str) -> bool:
    for library in _LIBRARIES:
        if architecture.startswith(library):
            return not _NAME.fullmatch(architecture.removeprefix(library))
    return ":" in architecture or "/" in architecture or ".py" in architecture
