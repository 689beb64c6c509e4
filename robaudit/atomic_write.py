"""Files and folders that are there whole or not at all, whenever and however the process ends.

What a process that was killed has left half-made is removed by the next one that writes there.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import shutil
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

DRAFT = ".draft-"
_OLD = ".old"
# Process and machine that own a draft; drafts of other owners are never removed.
_OWNER = r"(\d+)-([0-9a-f]{8})"


def atomic_write(path: Path, data: bytes | Iterable[bytes]) -> None:
    """Write a draft beside ``path``, to the disk, and give it the name; ``data`` may be in pieces.

    Raises:
        OSError: it cannot be written; no draft is left and an older file stands.
    """
    draft = path.with_name(f"{DRAFT}{_owner()}.{path.name}")
    try:
        with draft.open("wb") as file:
            file.writelines([data] if isinstance(data, bytes) else data)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except BaseException:  # an interrupt, too
        draft.unlink(missing_ok=True)
        raise


def clear_drafts(folder: Path) -> None:
    """Remove the drafts of :func:`atomic_write` whose process on this machine is dead."""
    for draft in folder.glob(f"{DRAFT}*"):
        found = re.match(re.escape(DRAFT) + _OWNER + r"\.", draft.name)
        if found is not None and _dead(found):
            with suppress(OSError):
                draft.unlink()


@contextmanager
def draft_folder(parent: Path, name: str) -> Iterator[Path]:
    """A hidden folder ``.NAME.OWNER-TOKEN`` in ``parent``, gone when the block ends.

    Those of processes on this machine that are dead are removed first, and what such a process had
    moved away with :func:`swap` and not replaced is put back.

    Raises:
        OSError: it cannot be made.
    """
    parent.mkdir(parents=True, exist_ok=True)
    _clear_folders(parent, name)
    draft = parent / f".{name}.{_owner()}-{secrets.token_hex(4)}"
    draft.mkdir()
    with _held(draft):
        try:
            yield draft
        finally:
            shutil.rmtree(draft, ignore_errors=True)


def swap(draft: Path, target: Path) -> None:
    """Put a draft folder in the place of ``target``.

    Raises:
        OSError: it cannot be done; ``target`` is then as it was.
    """
    if not target.exists():
        draft.rename(target)
        return
    old = draft.with_name(draft.name + _OLD)
    target.rename(old)
    try:
        draft.rename(target)
    except BaseException:
        old.rename(target)
        raise
    shutil.rmtree(old, ignore_errors=True)


def remove_empty(folders: Iterable[Path]) -> None:
    """Remove folders, those inside first, that hold nothing."""
    for folder in folders:
        with suppress(OSError):
            folder.rmdir()


def runs(pid: int) -> bool:
    """Whether there is a process of that number on this machine."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _clear_folders(parent: Path, name: str) -> None:
    pattern = re.compile(rf"\.{re.escape(name)}\.{_OWNER}-[0-9a-f]{{8}}({re.escape(_OLD)})?")
    for folder in list(parent.iterdir()):
        found = pattern.fullmatch(folder.name)
        if found is None or not _dead(found) or folder.is_symlink() or not _free(folder):
            continue
        target = parent / name
        if found[3] and not target.exists():
            with suppress(OSError):
                folder.rename(target)  # killed between two renames: it is the report
        else:
            shutil.rmtree(folder, ignore_errors=True)


@cache
def _machine() -> str:
    return hashlib.sha256(socket.gethostname().encode("utf-8", "replace")).hexdigest()[:8]


def _owner() -> str:
    return f"{os.getpid()}-{_machine()}"


def _dead(found: re.Match[str]) -> bool:
    return found[2] == _machine() and not runs(int(found[1]))


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    """Lock the folder, for a process that sees it and not this one, as from another container."""
    try:
        import fcntl

        number = os.open(folder, os.O_RDONLY)
    except (ImportError, OSError):
        yield
        return
    try:
        with suppress(OSError):  # a file system without locks
            fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(number)


def _free(folder: Path) -> bool:
    """Whether no process holds the folder."""
    try:
        import fcntl

        number = os.open(folder, os.O_RDONLY)
    except ImportError:
        return True
    except OSError:
        return False
    try:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    finally:
        os.close(number)
    return True
