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

    A line that was cut off by a kill is ended first.

    Raises:
        OSError: it cannot be written.
    """
    line = json.dumps({"event": kind, "at": round(time.time(), 3), **said}) + "\n"
    with path.open("ab+", buffering=0) as file:
        if file.seek(0, os.SEEK_END) > 0:
            file.seek(-1, os.SEEK_END)
            line = line if file.read(1) == b"\n" else f"\n{line}"
        file.write(line.encode())
        os.fsync(file.fileno())


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
