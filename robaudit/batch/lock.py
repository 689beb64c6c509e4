"""One driver a run, one worker a job: a lock that names its holder and beats while it lives."""

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

BEAT, STALE = 5.0, 60.0  # seconds
_PATIENCE = 0.5


@dataclass(frozen=True)
class Holder:
    """Who drives a run, as its lock says, and how long ago it last beat."""

    pid: int
    host: str
    token: str
    silent: float

    @property
    def alive(self) -> bool:
        """Whether it may still be at work: on this machine its process tells, elsewhere its beat.

        A process of another program that was given a dead driver's number does not beat.
        """
        if self.silent > STALE:
            return False
        return self.host != socket.gethostname() or runs(self.pid)


def holder(path: Path) -> Holder | None:
    """Whose lock it is, or ``None`` where there is none."""
    try:
        said = json.loads(path.read_bytes())
        silent = time.time() - path.stat().st_mtime
        return Holder(int(said["pid"]), str(said["host"]), str(said["token"]), silent)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError):
        return Holder(0, "", "", STALE + 1)  # nobody's: a lock is written whole


@contextmanager
def locked(path: Path, *, wait: bool = False) -> Iterator[None]:
    """Hold a lock; one that a dead process left is taken over.

    Args:
        wait: until its holder lets go or is found dead.

    Raises:
        UsageError: another driver holds it.
    """
    token = secrets.token_hex(8)
    while True:
        try:
            _take(path, token)
            break
        except UsageError:
            if not wait:
                raise
        time.sleep(_PATIENCE)
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
        os.link(draft, path)  # fails where another driver was quicker
    except FileExistsError:
        raise UsageError(f"{path.parent} was just taken by another driver") from None
    finally:
        draft.unlink()


def _beat(path: Path, done: threading.Event) -> None:
    while not done.wait(BEAT):
        with suppress(OSError):
            os.utime(path)


def _remove(path: Path, token: str) -> None:
    """Remove that holder's lock and no other's."""
    aside = path.with_name(f"{path.name}.gone-{secrets.token_hex(4)}")
    with suppress(FileNotFoundError):
        path.rename(aside)
        moved = holder(aside)
        if moved is not None and moved.token != token:
            with suppress(FileExistsError):
                os.link(aside, path)  # somebody took it over meanwhile: put it back
        aside.unlink()
