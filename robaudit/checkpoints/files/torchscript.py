"""TorchScript archives: the weights of the module, from its pickle and the text of its program.

The program is text in the archive; only the two lines of every class that name its parameters and
buffers are read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import chain
from typing import IO, Any

from robaudit.checkpoints.files.contents import (
    SAVE_STATE_DICT,
    Contents,
    Refusal,
    contents_of_pickle,
)
from robaudit.checkpoints.files.members import Member
from robaudit.checkpoints.files.modules import Walk
from robaudit.checkpoints.files.pickles import Reading
from robaudit.checkpoints.files.values import (
    MalformedPickleError,
    Opaque,
    Span,
    SymbolicTensor,
    stored,
)
from robaudit.checkpoints.files.zip_records import Records, damaged, read_record

_MAX_SOURCE = 16 << 20
_MAX_SOURCES = 64 << 20
_CLASS = re.compile(r"^class (\w+)\(Module\):\n((?:  __\w+__ = \[.*\]\n)*)", re.MULTILINE)
_NAMED = re.compile(r"^  __(parameters|buffers)__ = \[(.*)\]$", re.MULTILINE)
_TEXT = re.compile(r'"((?:[^"\\]|\\.)*)"')
_QUANTISED = ("__torch__.torch.classes.", "torch._utils._rebuild_qtensor")

Attributes = Mapping[str, frozenset[str] | None]


def contents_of_script(
    reading: Reading,
    records: Records,
    root: str,
    file: IO[bytes],
    places: Mapping[str, Span],
    path: str,
) -> Contents:
    """The state dict of a TorchScript module, as ``torch.jit.load(...).state_dict()`` has it.

    Raises:
        CheckpointError: the archive is damaged.
    """
    # Classes of the program itself are in the archive, and are not run.
    asked = tuple(f for f in reading.findings if not _is_own(f.module))
    reading = replace(reading, findings=asked)
    if reading.damage or any(finding.severity == "dangerous" for finding in asked):
        plain = contents_of_pickle(reading, "torchscript", path, file, places)
        return replace(plain, note="a program")
    attributes = _attributes(file, records, root, path)
    unsure: list[str] = []
    tensors: dict[str, SymbolicTensor] = {}
    refusal = None
    try:
        tensors.update(_walk(reading.value, "", 0, Walk(), attributes, unsure))
    except _UnreadableError as error:
        refusal = Refusal(f"{path}: {error}", SAVE_STATE_DICT)
    except MalformedPickleError as error:
        raise damaged(path, str(error)) from None
    if not tensors and refusal is None:
        refusal = Refusal(
            f"{path}: the TorchScript program holds no state dict: its weights were frozen into "
            "the program, or it has none",
            "Save the weights of its network alone: torch.save(model.state_dict(), PATH).",
        )
    members = (Member("", {k: stored(t, places[t.storage.key]) for k, t in tensors.items()}),)
    remarks = ["the TorchScript program is not run: only its weights are read"]
    if unsure:
        remarks.append("which of its tensors are weights is not written in the program")
    return Contents(
        "torchscript",
        members if tensors and refusal is None else (),
        {},
        asked,
        refusal,
        "a program",
        tuple(remarks) if refusal is None else (),
    )


class _UnreadableError(Exception):
    """The program's weights cannot be found without running it."""


def _attributes(file: IO[bytes], records: Records, root: str, path: str) -> Attributes:
    """The parameters and buffers of every class of the program, by its label."""
    found: dict[str, frozenset[str] | None] = {}
    left = _MAX_SOURCES
    for key, info in records.items():
        if key.startswith(f"{root}code/") and key.endswith(".py"):
            left -= info.file_size
            if left < 0:
                raise damaged(path, "its program is too long")
            module = key.removeprefix(f"{root}code/").removesuffix(".py").replace("/", ".")
            source = read_record(file, info, path, _MAX_SOURCE).decode("utf-8", "replace")
            found |= {f"{module}.{name}": n for name, n in named_attributes(source).items()}
    return found


def named_attributes(source: str) -> dict[str, frozenset[str] | None]:
    r"""The parameters and buffers of every class in a program's text.

    >>> named_attributes('class A(Module):\n  __parameters__ = ["w", ]\n  __buffers__ = []\n')
    {'A': frozenset({'w'})}
    """
    found: dict[str, frozenset[str] | None] = {}
    for header in _CLASS.finditer(source):
        lists = {kind: _TEXT.findall(names) for kind, names in _NAMED.findall(header[2])}
        whole = {"parameters", "buffers"} <= set(lists)
        found[header[1]] = frozenset(chain(*lists.values())) if whole else None
    return found


def _is_own(module: str) -> bool:
    return module == "__torch__" or module.startswith("__torch__.")


def _walk(
    module: Any, prefix: str, depth: int, walk: Walk, attributes: Attributes, unsure: list[str]
) -> Iterator[tuple[str, SymbolicTensor]]:
    if not isinstance(module, Opaque) or not isinstance(module.state, dict):
        raise _UnreadableError("the TorchScript program does not hold its weights as attributes")
    names = attributes.get(module.label)
    if names is None:
        unsure.append(module.label)
    for name, value in module.state.items():
        if not isinstance(name, str):
            raise MalformedPickleError("an attribute has no name")
        walk.step(prefix + name, depth)
        if isinstance(value, SymbolicTensor) and (names is None or name in names):
            yield prefix + name, value
        elif isinstance(value, Opaque) and value.label.startswith(_QUANTISED):
            raise _UnreadableError("the TorchScript program is quantised")
        elif isinstance(value, Opaque) and _is_own(value.label.rpartition(".")[0]):
            yield from _walk(value, f"{prefix}{name}.", depth + 1, walk, attributes, unsure)
