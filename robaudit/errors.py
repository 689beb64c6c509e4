"""The one exception tree: every error knows its exit code and carries advice.

The command line prints ``message`` and ``advice`` (one line each) and exits with ``exit_code``;
a library user catches :class:`RobauditError` or one of its kinds, whose text says ``arch=`` where
the command line says ``--arch``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence


class RobauditError(Exception):
    """Anything robaudit refuses or cannot do.

    Args:
        message: what is wrong, in one line.
        advice: what to do about it, in one line; ``None`` where the message says it.
    """

    exit_code = 5

    def __init__(self, message: str, advice: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.advice = advice

    def __str__(self) -> str:
        lines = [self.message] if self.advice is None else [self.message, self.advice]
        return "\n".join(map(_in_python, lines))


class UsageError(RobauditError):
    """An option or argument that cannot be meant: exit code 2.

    Args:
        field: the setting that is refused, as :mod:`robaudit.request` names it. The message then
            begins with that name, and on the command line with the option, ``--data-dir``.
    """

    exit_code = 2

    def __init__(
        self, message: str, advice: str | None = None, *, field: str | None = None
    ) -> None:
        super().__init__(message if field is None else f"{field}: {message}", advice)
        self.field = field


class NotMeasuredError(RobauditError):
    """A quantity that could not be measured on this model and data: exit code 3."""

    exit_code = 3


class CheckpointError(RobauditError):
    """A checkpoint that is unsafe, unreadable or not identified: exit code 4."""

    exit_code = 4


class OpenQuestionError(CheckpointError):
    """What a checkpoint is remains open, and nobody said it: nothing is audited by a guess.

    Attributes:
        candidates: a short table of what is left, a line each.
    """

    def __init__(self, message: str, advice: str, candidates: Sequence[str] = ()) -> None:
        super().__init__(message, advice)
        self.candidates = tuple(candidates)

    def __str__(self) -> str:
        return "\n".join(map(_in_python, (self.message, *self.candidates, self.advice or "")))


class DataError(RobauditError):
    """Examples that are missing, unreadable or out of range: exit code 4."""

    exit_code = 4


class Interrupted(KeyboardInterrupt):
    """Ctrl-C, or a request to end: as the command line's signal handlers raise it.

    A network can raise ``KeyboardInterrupt`` and not this.

    Attributes:
        kept: what is left for the next run to go on from; ``None`` where nothing is.
    """

    kept: str | None = None


# Options that are arguments of functions, and those of them that take no value.
_ARGUMENTS = (
    *("arch", "normalize", "member", "weights", "sha256", "model-dir", "data-dir", "device"),
    *("batch-size", "eps", "n", "layers", "split", "operator", "precision", "steps", "restarts"),
    *("samples", "seed"),
)
_FLAGS = {
    "download": "download",
    "trust-pickle": "trust_pickle",
    "force-eps": "forced",
    "guess": "guess",
}
# A value after an option: quoted, in capitals or digits, or with a mark that no word has.
_VALUE = r"(?:[ =](\"[^\"]*\"|[A-Z0-9][^\s,;)]*|[^\s,;)]+[:/][^\s,;)]*))?"
_OPTION = re.compile(rf"--({'|'.join((*_ARGUMENTS, *_FLAGS))})(?![a-z0-9-]){_VALUE}")


def _in_python(text: str) -> str:
    """A message in the words of a function's caller.

    >>> _in_python("give --arch file.py:factory, or --download; --normalize would settle it")
    'give arch=file.py:factory, or download=True; normalize= would settle it'
    """

    def said(match: re.Match[str]) -> str:
        name, value = match[1], match[2] or ""
        if name in _FLAGS:
            return f"{_FLAGS[name]}=True" + (f" {value}" if value else "")
        return f"{name.replace('-', '_')}={value}"

    return _OPTION.sub(said, text)
