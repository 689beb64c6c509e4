"""Files that are there whole or not at all, whenever and however the process ends."""

from __future__ import annotations

import os
from pathlib import Path

DRAFT = ".draft-"


def write_whole(path: Path, data: bytes) -> None:
    """Write a draft beside ``path``, to the disk, and give it the name.

    Raises:
        OSError: it cannot be written; no draft is left and an older file stands.
    """
    draft = path.with_name(f"{DRAFT}{path.name}.{os.getpid()}")
    try:
        with draft.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except BaseException:  # an interrupt, too
        draft.unlink(missing_ok=True)
        raise
