"""SHA-256 of a checkpoint's files."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO

HASH_LIMIT = 256 << 20
"""Checkpoints up to this many bytes are hashed by default."""

_CHUNK = 1 << 20

BytesRead = Callable[[int], None]
"""Called with the number of bytes of each piece that was read."""


def digest(file: IO[bytes], progress: BytesRead | None = None) -> str:
    """The SHA-256 of a whole file, in hexadecimal."""
    file.seek(0)
    sha = hashlib.sha256()
    while piece := file.read(_CHUNK):
        sha.update(piece)
        if progress is not None:
            progress(len(piece))
    return sha.hexdigest()


def digest_of_files(files: Sequence[Path], progress: BytesRead | None = None) -> str:
    """The SHA-256 of one file; of several, that of their lines ``<sha256>  <name>``, by name.

    The lines are those that ``sha256sum`` prints, so that ``sha256sum a b | sha256sum`` agrees.
    """
    ordered = sorted(files, key=lambda path: path.name)
    digests = []
    for path in ordered:
        with path.open("rb") as file:
            digests.append((digest(file, progress), path.name))
    return joint_digest(digests)


def joint_digest(digests: Sequence[tuple[str, str]]) -> str:
    r"""One hash for the (SHA-256, name) of some files: its own, or that of lines ``hash  name``.

    >>> joint_digest([("ab", "a.pt")])
    'ab'
    """
    if len(digests) == 1:
        return digests[0][0]
    lines = "".join(f"{sha}  {name}\n" for sha, name in digests)
    return hashlib.sha256(lines.encode()).hexdigest()
