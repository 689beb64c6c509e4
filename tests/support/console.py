"""Runs the command line in this process, as a shell would."""

import io
import re
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

from robaudit.cli import command

SAMPLES = Path(__file__).parents[2] / "sample_checkpoints"
ROBUST = SAMPLES / "robust.pt"
STANDARD = SAMPLES / "standard.pt"

_COLOUR = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@dataclass(frozen=True)
class Ran:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def flat(self) -> str:
        """Stderr on one line, without the frame that typer draws around usage errors."""
        return " ".join(re.sub(r"[│╭╮╰╯─]", " ", self.err).split())


class Terminal(io.StringIO):
    def isatty(self):
        return True


def robaudit(*words, stderr=None) -> Ran:
    out, err = io.StringIO(), stderr or io.StringIO()
    code = 0
    with redirect_stdout(out), redirect_stderr(err):
        try:
            command()(args=[str(word) for word in words], prog_name="robaudit")
        except SystemExit as leaving:
            code = leaving.code or 0
    return Ran(code, out.getvalue(), uncoloured(err.getvalue()))


def uncoloured(text):
    """typer colours help and usage errors on some CI machines, whatever they are written to."""
    return _COLOUR.sub("", text)


def entries(folder):
    """Every path under a folder, hidden ones too."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))
