"""Downloads that leave either a checked file or nothing. No torch."""

from __future__ import annotations

import contextlib
import re
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from robaudit.checkpoints.files.container import read_container
from robaudit.checkpoints.files.display import shown
from robaudit.errors import CheckpointError

# torchvision's file names end in the first eight digits of the file's SHA-256.
_HASHED = re.compile(r"-([0-9a-f]{8})\.pth$")


def fetch(target: Path, what: str, get: Callable[[Path], object], by_hand: str) -> None:
    """Put a download at ``target`` once it is whole and a checkpoint.

    Args:
        target: where the file goes; its folder is made.
        what: what is fetched, for messages.
        get: downloads into the path it is given, in a folder of its own beside ``target``.
        by_hand: where a person finds the file.

    Raises:
        CheckpointError: it could not be fetched, or is no checkpoint; nothing is left behind.
    """
    advice = f"Try again later, or put the file there yourself: {by_hand}."
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".download-") as folder:
            got = Path(folder) / target.name
            try:
                with contextlib.redirect_stdout(sys.stderr):  # stdout belongs to the result
                    get(got)
            except Exception as error:  # whatever a downloader trips over
                lines = " ".join(str(error).split()) or type(error).__name__
                raise CheckpointError(
                    f"{what} could not be fetched: {shown(lines, 300)}", advice
                ) from error
            if not got.is_file():
                raise CheckpointError(f"{what} could not be fetched: no file came", advice)
            try:
                read_container(got, hash=False)
            except CheckpointError as error:
                found = error.message.replace(shown(got, 200), f"what came for {target.name}")
                raise CheckpointError(f"{what} could not be fetched: {found}", advice) from None
            got.replace(target)
    except OSError as error:
        raise CheckpointError(
            f"{what} cannot be put into {shown(target.parent, 200)}: {error.strerror or error}",
            "Choose another folder with --model-dir.",
        ) from error


def check_hash(path: Path, sha256: str | None) -> None:
    """Compare a file's SHA-256 with the digits in its name, where it has them.

    Raises:
        CheckpointError: it is another file than its name says.
    """
    named = _HASHED.search(path.name)
    if named is not None and sha256 is not None and not sha256.startswith(named[1]):
        raise CheckpointError(
            f"{shown(path, 200)} has the SHA-256 {sha256[:8]}..., not the {named[1]} in its name",
            "It is damaged, or another file: delete it and fetch it again with --download.",
        )
