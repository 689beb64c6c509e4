"""The names that a pickle asks for, and how dangerous they are. Nothing is run or imported.

A pickle is a program: loading it imports every name in it and may call them. So the names are
listed and judged before anything is loaded.
"""

from __future__ import annotations

import io
import pickletools
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import IO, Any

from robaudit.checkpoints.files.machine import MAX_BYTES, BoundedReader, Machine, asked_name
from robaudit.checkpoints.files.severity import SEVERITIES, Finding, severity
from robaudit.checkpoints.files.values import Global, MalformedPickleError, Storage


@dataclass(frozen=True)
class Reading:
    """One pickle, read symbolically.

    ``value`` is its inert description (see :mod:`.values`) and ``storages`` every storage in it, by
    key. If the pickle is malformed they are empty and ``damage`` says why.
    """

    value: Any
    storages: Mapping[str, Storage]
    findings: tuple[Finding, ...]
    damage: str | None


def read_pickle(file: IO[bytes], limit: int = MAX_BYTES) -> Reading:
    """Read the pickle that starts at the file's position; leaves the position behind it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pickletools remarks on escapes in damaged strings
        return _read_pickle(file, limit)


def _read_pickle(file: IO[bytes], limit: int) -> Reading:
    start = file.tell()
    machine = Machine()
    try:
        value = machine.run(file, limit)
    except MalformedPickleError as error:
        file.seek(start)
        asked = [*machine.globals, *_scan(file, limit)]
        return Reading(None, {}, _judged(asked), str(error))
    return Reading(value, machine.storages, _judged(machine.globals), None)


def findings(data: bytes) -> tuple[Finding, ...]:
    """Every name the pickle asks for, without repeats, the worst first.

    For a damaged pickle these are the names before and, as far as possible, after the damage.
    """
    return read_pickle(io.BytesIO(data), len(data)).findings


def _scan(file: IO[bytes], limit: int) -> Iterable[Global]:
    """Names in opcodes that hold them literally, for pickles that the machine cannot follow."""
    strings: list[str] = []
    try:
        for opcode, argument, _ in pickletools.genops(BoundedReader(file, limit)):  # type: ignore[arg-type]
            if opcode.name in ("GLOBAL", "INST"):
                module, _, name = str(argument).partition(" ")
                yield asked_name(module, name)
            elif opcode.name == "STACK_GLOBAL" and len(strings) == 2:
                yield asked_name(strings[0], strings[1])
            elif isinstance(argument, str):
                strings = [*strings[-1:], argument]
    except (MalformedPickleError, ValueError, OverflowError):
        return


def _judged(asked: Iterable[Global]) -> tuple[Finding, ...]:
    found = dict.fromkeys(Finding(g.module, g.name, severity(g.module, g.name)) for g in asked)
    return tuple(sorted(found, key=lambda finding: SEVERITIES.index(finding.severity)))
