"""``--on-result``: a command of the user's that gets every report's folder."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from robaudit.cli.messages import say
from robaudit.errors import UsageError


def teller(command: str | None, out: Path | None) -> Callable[[Path], None]:
    """Gives a function that runs the command with a report's folder as its last argument.

    What the command prints goes to stderr. One that fails is a message: the report is there.

    Args:
        command: as in a shell, without its expansions; ``None`` for nothing.
        out: where the reports go.

    Raises:
        UsageError: no such command, or no reports are written.
    """
    if command is None:
        return lambda _: None
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise UsageError(f"on_result {command}: {error}", field="on_result") from error
    if not words or shutil.which(words[0]) is None:
        raise UsageError(
            f"on_result {command}: there is no such command",
            'A script runs as "python script.py".',
            field="on_result",
        )
    if out is None:
        raise UsageError("on_result needs --out: it is told where the report is", field="on_result")

    def tell(folder: Path) -> None:
        done = subprocess.run(  # noqa: S603 - the user's own command
            [*words, str(folder)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            check=False,
        )
        sys.stderr.write(done.stdout)
        if done.returncode:
            say(f"--on-result {command}: it ended with {done.returncode} for {folder}")

    return tell
