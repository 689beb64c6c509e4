"""The journal of a run: a file to which events are appended, one line of JSON each."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

Event = dict[str, Any]


def append(path: Path, kind: str, **said: Any) -> None:
    """Append an event; it is on the disk when this returns.

    Raises:
        OSError: it cannot be written.
    """
    line = json.dumps({"event": kind, "at": round(time.time(), 3), **said}) + "\n"
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(descriptor, line.encode())
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def mend(path: Path) -> None:
    """End a line that was cut off by a kill, so that the next event begins a new line."""
    try:
        with path.open("rb+") as file:
            if file.seek(0, os.SEEK_END) == 0:
                return
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                file.write(b"\n")
    except FileNotFoundError:
        return


def events(path: Path) -> list[Event]:
    """All events; lines that were cut off are left out."""
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return []
    found = []
    for line in lines:
        try:
            event = json.loads(line)
        except ValueError:
            continue
        if isinstance(event, dict) and isinstance(event.get("event"), str):
            found.append(event)
    return found
