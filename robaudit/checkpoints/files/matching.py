"""Checkpoint files by patterns of their names. Imports no torch."""

from __future__ import annotations

import glob
from pathlib import Path

# Files beside checkpoints that runs/* matches.
_NO_CHECKPOINTS = {".toml", ".json", ".yaml", ".yml", ".txt", ".md", ".log", ".csv", ".py"}


def matching(pattern: str) -> list[str]:
    """The checkpoints that a path or a pattern such as ``runs/**/*.pt`` names, sorted."""
    if Path(pattern).exists():  # also names with brackets in them
        return [pattern]
    return [
        name
        for name in sorted(glob.glob(pattern, recursive=True))  # noqa: PTH207 - absolute patterns
        if Path(name).suffix not in _NO_CHECKPOINTS
    ]
