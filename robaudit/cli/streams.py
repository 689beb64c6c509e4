"""Streams that are closed, full, or left by their reader; and the signals that end a run."""

from __future__ import annotations

import errno
import io
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TextIO

from robaudit.errors import Interrupted

_ENDING = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
)


class _Text(io.TextIOWrapper):
    """After an error it writes to nowhere, so that no command breaks for want of a screen.

    Attributes:
        error: what went wrong, where it is not just that the reader has left.
    """

    error: OSError | None = None

    def write(self, text: str, /) -> int:
        """As of any text stream; an error is kept and not raised."""
        try:
            return super().write(text)
        except OSError as error:
            self._leave(error)
            return len(text)

    def flush(self) -> None:
        """As of any text stream; an error is kept and not raised."""
        try:
            super().flush()
        except OSError as error:
            self._leave(error)

    def _leave(self, error: OSError) -> None:
        if self.error is None and error.errno not in (errno.EPIPE, errno.ESHUTDOWN):
            self.error = error
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.fileno())  # where what is still in the buffer goes, too
        os.close(nowhere)


def guard_streams() -> None:
    """Make the process's streams ones that never raise; :func:`failure` tells what went wrong.

    A stream that the caller has closed is one to nowhere: else the next file that is opened would
    have its number, and get what is printed. In an encoding that lacks a character, and for a file
    name that is no text, a question mark is shown.
    """
    with suppress(OSError):
        while (number := os.open(os.devnull, os.O_RDWR)) <= 2:  # the lowest that is free
            pass
        os.close(number)
    sys.stdout, sys.stderr = _guarded(sys.stdout, 1), _guarded(sys.stderr, 2)


def _guarded(stream: TextIO | None, number: int) -> TextIO:
    encoding, lines = "utf-8", number == 2
    if stream is not None:
        try:
            if stream.fileno() != number:
                return stream
        except (OSError, AttributeError, ValueError):
            return stream  # a caller's own, in memory
        with suppress(OSError):
            stream.flush()
        encoding, lines = stream.encoding, lines or getattr(stream, "line_buffering", False)
    raw = io.FileIO(number, "w", closefd=False)
    return _Text(io.BufferedWriter(raw), encoding=encoding, errors="replace", line_buffering=lines)


def failure() -> str | None:
    """Why standard output did not get all that was written to it; ``None`` where it did.

    A reader that has left is no failure.
    """
    sys.stdout.flush()
    error = sys.stdout.error if isinstance(sys.stdout, _Text) else None
    return None if error is None else error.strerror or str(error)


@contextmanager
def signals() -> Iterator[None]:
    """Ctrl-C, and a request to end, arrive as :class:`~robaudit.errors.Interrupted`.

    So that both clean up alike, and that neither is taken for a ``KeyboardInterrupt`` of a
    network's own. Signals that the caller has the program ignore stay ignored.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {
        number: handler
        for number in _ENDING
        if (handler := signal.getsignal(number)) not in (signal.SIG_IGN, None)
    }
    for number in before:
        signal.signal(number, _interrupt)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _interrupt(number: int, _: object) -> None:
    raise Interrupted(signal.Signals(number).name)
