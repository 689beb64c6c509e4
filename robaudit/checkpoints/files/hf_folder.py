"""Hugging Face folders: ``config.json`` beside the weights, which may be in several files."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from robaudit.checkpoints.files.contents import Contents, Refusal
from robaudit.checkpoints.files.display import shown
from robaudit.checkpoints.files.members import Member
from robaudit.errors import CheckpointError

_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
_INDEX = ".index.json"
_MAX_JSON = 32 << 20
_MAX_SHARDS = 1000
_MAX_TEXT = 200
_ADVICE = (
    "Expected is a Hugging Face folder: config.json beside model.safetensors or "
    "pytorch_model.bin. Or name a checkpoint file in it."
)


@dataclass(frozen=True)
class Folder:
    """The relevant files of a Hugging Face folder.

    Attributes:
        shards: the weight files.
        names: tensor to the name of its shard, as in the index; empty without one.
    """

    path: Path
    shards: tuple[Path, ...]
    names: Mapping[str, str]
    config: Mapping[str, Any]
    preprocessor: Mapping[str, Any]


def find_folder(path: Path) -> Folder:
    """Look at a directory.

    Raises:
        CheckpointError: it is no Hugging Face folder, or its index points outside it.
    """
    name = shown(path, 200)
    if not (path / "config.json").is_file():
        raise CheckpointError(f"{name} is a directory without config.json", _ADVICE)
    config = _json(path / "config.json")
    other = path / "preprocessor_config.json"
    preprocessor = _json(other) if other.is_file() else {}
    for weights in _WEIGHTS:
        if (path / weights).is_file():
            return Folder(path, (_inside(path, weights),), {}, config, preprocessor)
        if (path / (weights + _INDEX)).is_file():
            names = _index(path / (weights + _INDEX))
            shards = tuple(_inside(path, shard) for shard in sorted(set(names.values())))
            return Folder(path, shards, names, config, preprocessor)
    raise CheckpointError(f"{name} is a directory without weights", _ADVICE)


def read_folder(folder: Folder, read_shard: Callable[[Path], Contents]) -> Contents:
    """The tensors of all shards as one state dict.

    Args:
        read_shard: reads one file.

    Raises:
        CheckpointError: a shard is damaged or missing, or does not hold what the index says.
    """
    contents = [(shard, read_shard(shard)) for shard in folder.shards]
    findings = tuple(dict.fromkeys(f for _, c in contents for f in c.findings))
    refusal = next((c.refusal for _, c in contents if c.refusal is not None), None)
    note = ", ".join(dict.fromkeys(c.format for _, c in contents))
    metadata = {**_plain(folder.config), **_of_shards(contents)}
    if refusal is not None:
        return Contents("hf-folder", (), metadata, findings, refusal, note)
    remarks = tuple(dict.fromkeys(remark for _, c in contents for remark in c.remarks))
    if len(contents) == 1:
        only = contents[0][1]
        return replace(only, format="hf-folder", metadata={**only.metadata, **metadata}, note=note)
    member = _merged(folder, contents)
    if member.unreadable:
        refusal = Refusal(f"{shown(folder.path, 200)} holds tensors of special kinds", None)
    return Contents("hf-folder", (member,), metadata, findings, refusal, note, remarks)


def _merged(folder: Folder, contents: list[tuple[Path, Contents]]) -> Member:
    tensors: dict[str, Any] = {}
    unreadable: dict[str, str] = {}
    for shard, found in contents:
        # A shard is a part of one state dict, whatever its keys.
        for member in found.members:
            for key, tensor in member.tensors.items():
                if folder.names.get(key) != shard.name:
                    raise CheckpointError(
                        f"{shown(shard, 200)}: the index does not have {shown(key)!r} in this file",
                        "Download the whole folder again.",
                    )
                tensors[key] = tensor
            unreadable.update(member.unreadable)
    missing = [key for key in folder.names if key not in tensors and key not in unreadable]
    if missing:
        raise CheckpointError(
            f"{shown(folder.path, 200)}: the weights lack {shown(missing[0])!r}"
            + (f" and {len(missing) - 1} more" if len(missing) > 1 else ""),
            "Download the whole folder again.",
        )
    ordered = {key: tensors[key] for key in folder.names if key in tensors}
    return Member("", ordered, unreadable=unreadable)


def _of_shards(contents: list[tuple[Path, Contents]]) -> dict[str, str]:
    return {k: v for _, c in contents for k, v in c.metadata.items() if k.startswith("robaudit.")}


def architecture_of(folder: Folder) -> str | None:
    """The architecture a timm configuration names, as ``timm:NAME``."""
    name = folder.config.get("architecture")
    if not isinstance(name, str) or not _is_name(name):
        return None
    return f"timm:{name}"


def normalization_of(folder: Folder) -> str | None:
    """The input normalisation that the configuration states, as ``m,m,m;s,s,s``."""
    pretrained = folder.config.get("pretrained_cfg")
    pretrained = pretrained if isinstance(pretrained, dict) else folder.config
    for source, mean, std in (
        (folder.preprocessor, "image_mean", "image_std"),
        (pretrained, "mean", "std"),
    ):
        if source is folder.preprocessor and source.get("do_normalize") is False:
            continue
        numbers = [_numbers(source.get(key)) for key in (mean, std)]
        if numbers[0] and numbers[1] and len(numbers[0]) == len(numbers[1]):
            return ";".join(",".join(f"{x:g}" for x in part) for part in numbers if part)
    return None


def _numbers(value: Any) -> list[float] | None:
    if not isinstance(value, list) or not 1 <= len(value) <= 16:
        return None
    if not all(type(x) in (int, float) and abs(x) < 1e6 for x in value):
        return None
    return [float(x) for x in value]


def _is_name(text: str) -> bool:
    return len(text) <= _MAX_TEXT and all(c.isalnum() or c in "_.-" for c in text) and bool(text)


def _index(path: Path) -> dict[str, str]:
    names = _json(path).get("weight_map")
    if (
        not isinstance(names, dict)
        or not names
        or not all(isinstance(shard, str) for shard in names.values())
        or len(set(names.values())) > _MAX_SHARDS
    ):
        raise CheckpointError(
            f"{shown(path, 200)} has no weight_map of names to files",
            "Download the whole folder again.",
        )
    return names


def _inside(folder: Path, name: str) -> Path:
    """A file in the folder itself.

    Download caches keep a folder's files as links to ``../../blobs``, so a link may lead to a
    regular file there.
    """
    path = folder / name
    plain = name not in ("", "..") and name == Path(name).name and not {"\\", "\0"} & set(name)
    if not plain or not _leads_inside(folder, path):
        raise CheckpointError(
            f"{shown(folder, 200)}: the weights are said to be in {shown(name)!r}, "
            "which is not in the folder",
            "The folder may be malicious: download it again from its source.",
        )
    if not path.is_file():
        raise CheckpointError(
            f"{shown(folder, 200)}: the file {shown(name)!r} is missing",
            "Download the whole folder again.",
        )
    return path


def _leads_inside(folder: Path, path: Path) -> bool:
    real, home = path.resolve(), folder.resolve()
    if real.is_relative_to(home):
        return True
    # <cache>/snapshots/<revision> beside <cache>/blobs
    return home.parent.name == "snapshots" and real.parent == home.parent.parent / "blobs"


def _json(path: Path) -> dict[str, Any]:
    name = shown(path, 200)
    try:
        if path.stat().st_size > _MAX_JSON:
            raise ValueError(f"it has more than {_MAX_JSON >> 20} MB")
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError, RecursionError) as error:
        raise CheckpointError(
            f"{name} cannot be read: {shown(error, 200)}", "Download the whole folder again."
        ) from None
    if not isinstance(content, dict):
        raise CheckpointError(f"{name} is no configuration", "Download the whole folder again.")
    return content


def _plain(config: Mapping[str, Any]) -> dict[str, str]:
    found = {}
    for key in ("model_type", "architectures", "architecture", "num_classes", "num_labels"):
        value = config.get(key)
        if isinstance(value, list):
            value = ", ".join(str(entry) for entry in value if isinstance(entry, str))
        if isinstance(value, str | int) and len(str(value)) <= _MAX_TEXT:
            found[key] = str(value)
    return found
