"""Lock files: one driver for each run, one worker for each job.

A lock names its holder, which touches the file every few seconds while it runs.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from robaudit.atomic_write import runs
from robaudit.errors import UsageError

# Seconds: between two touches, after which a lock is stale, and between two attempts to take it.
BEAT, STALE, _RETRY = 5.0, 60.0, 0.5


@dataclass(frozen=True)
class Holder:
    """The process that holds a lock.

    Attributes:
        silent: seconds since it last touched the lock.
    """

    pid: int
    host: str
    token: str
    silent: float

    @property
    def alive(self) -> bool:
        """Whether it may still be running.

        On this machine its process must exist; a holder on any machine must touch the lock, which
        another program that was given a dead holder's process number does not.
        """
        if self.silent > STALE:
            return False
        return self.host != socket.gethostname() or runs(self.pid)


def holder(path: Path) -> Holder | None:
    """The holder of a lock, or ``None`` where there is no lock."""
    try:
        said = json.loads(path.read_bytes())
        silent = time.time() - path.stat().st_mtime
        return Holder(int(said["pid"]), str(said["host"]), str(said["token"]), silent)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError):
        return Holder(0, "", "", STALE + 1)  # damaged: locks are written atomically


@contextmanager
def locked(path: Path, *, wait: bool = False) -> Iterator[None]:
    """Hold a lock; one whose holder is dead is taken over.

    Args:
        wait: wait until the lock is free.

    Raises:
        UsageError: another process holds it, and ``wait`` is false.
    """
    token = secrets.token_hex(8)
    while True:
        try:
            _take(path, token)
            break
        except UsageError:
            if not wait:
                raise
        time.sleep(_RETRY)
    done = threading.Event()
    beating = threading.Thread(target=_beat, args=(path, done), daemon=True)
    beating.start()
    try:
        yield
    finally:
        done.set()
        beating.join()
        _remove(path, token)


def _take(path: Path, token: str) -> None:
    found = holder(path)
    if found is not None:
        if found.alive:
            raise UsageError(
                f"{path.parent} is driven by process {found.pid} on {found.host}",
                "Wait for it, or stop it: robaudit batch status shows how far it is.",
            )
        _remove(path, found.token)
    draft = path.with_name(f"{path.name}.{token}")
    draft.write_text(json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "token": token}))
    try:
        os.link(draft, path)  # fails where another process was faster
    except FileExistsError:
        raise UsageError(f"{path.parent} was just taken by another driver") from None
    finally:
        draft.unlink()


def _beat(path: Path, done: threading.Event) -> None:
    while not done.wait(BEAT):
        with suppress(OSError):
            os.utime(path)


def _remove(path: Path, token: str) -> None:
    """Remove the lock if its holder has this token."""
    aside = path.with_name(f"{path.name}.gone-{secrets.token_hex(4)}")
    with suppress(FileNotFoundError):
        path.rename(aside)
        moved = holder(aside)
        if moved is not None and moved.token != token:
            with suppress(FileExistsError):
                os.link(aside, path)  # another process has taken it over: put it back
        aside.unlink()
