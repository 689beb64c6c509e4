"""Checkpoint files by patterns of their names. Imports no torch."""

from __future__ import annotations

import glob
from pathlib import Path

from robaudit.checkpoints.files.display import shown
from robaudit.errors import UsageError

# Files beside checkpoints that runs/* matches.
_NO_CHECKPOINTS = {".toml", ".json", ".yaml", ".yml", ".txt", ".md", ".log", ".csv", ".py"}
_LONGEST = 300


def matching(pattern: str) -> list[str]:
    """The checkpoints that a path or a pattern such as ``runs/**/*.pt`` names, sorted.

    Raises:
        UsageError: there is none.
    """
    if Path(pattern).exists():  # also names with brackets in them
        return [pattern]
    found = [
        name
        for name in sorted(glob.glob(pattern, recursive=True))  # noqa: PTH207 - absolute patterns
        if Path(name).suffix not in _NO_CHECKPOINTS
    ]
    if not found:
        raise UsageError(f"no checkpoint is {shown(pattern, _LONGEST)}", "Check the path.")
    return found
