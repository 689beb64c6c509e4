"""All exceptions: each has an exit code, a message and advice.

The command line prints ``message`` and ``advice`` (one line each) and exits with ``exit_code``.
In Python, the exception's text names arguments (``arch=``) where the command line names options
(``--arch``).
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence

_TORCHSCRIPT = "The following operation failed in the TorchScript interpreter."


class RobauditError(Exception):
    """Base class of robaudit's errors.

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
    """An invalid option or argument: exit code 2.

    Args:
        field: the setting that is refused, as :mod:`robaudit.request` names it. The message begins
            with that name, ``data_dir``; the command line shows the option, ``--data-dir``.
    """

    exit_code = 2

    def __init__(
        self, message: str, advice: str | None = None, *, field: str | None = None
    ) -> None:
        super().__init__(message, advice)
        self.field = field


class NotMeasuredError(RobauditError):
    """A quantity that could not be measured on this model and data: exit code 3."""

    exit_code = 3


class NotCertifiableError(NotMeasuredError):
    """A network that no lower bound can be computed for: exit code 3."""


class CheckpointError(RobauditError):
    """A checkpoint that is unsafe, unreadable or not identified: exit code 4."""

    exit_code = 4


class OpenQuestionError(CheckpointError):
    """A checkpoint's architecture or normalisation could not be determined and was not given.

    Attributes:
        candidates: the remaining possibilities, one per line.
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
    """Ctrl-C or a termination signal, raised by the command line's signal handlers.

    It differs from a ``KeyboardInterrupt`` that a network raises.

    Attributes:
        kept: where the next run resumes; ``None`` where nothing was saved.
    """

    kept: str | None = None


def did_you_mean(name: str, known: Iterable[str], n: int = 1, cutoff: float = 0.6) -> str:
    """The end of a message about an unknown name: the ``n`` nearest names, or nothing.

    >>> did_you_mean("resnet5", ["resnet50", "vgg16"])
    "; did you mean 'resnet50'?"
    """
    folded = {entry.lower(): entry for entry in known}
    near = difflib.get_close_matches(name.lower(), folded, n, cutoff)
    return f"; did you mean {' or '.join(repr(folded[one]) for one in near)}?" if near else ""


def error_line(error: BaseException) -> str:
    """An exception's type and message in one line.

    >>> error_line(ValueError("no images of mine"))
    'ValueError: no images of mine'
    """
    kind, line = type(error).__name__, first_line(error)
    return line if line == kind else f"{kind}: {line.removeprefix(f'{kind}: ')}"


def first_line(error: BaseException) -> str:
    """The line of an exception's text that says most; its type where there is no text."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    # The error of a TorchScript program is in the last line.
    return lines[-1 if lines[0] == _TORCHSCRIPT else 0][:200]


# Options that are also arguments of functions; flags map to the argument that is then true.
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
# A value after an option: quoted, starting with a capital or digit, or containing ``:`` or ``/``.
_VALUE = r"(?:[ =](\"[^\"]*\"|[A-Z0-9][^\s,;)]*|[^\s,;)]+[:/][^\s,;)]*))?"
_OPTION = re.compile(rf"--({'|'.join((*_ARGUMENTS, *_FLAGS))})(?![a-z0-9-]){_VALUE}")


def _in_python(text: str) -> str:
    """A message with options written as arguments of functions.

    >>> _in_python("give --arch file.py:factory, or --download; --normalize would settle it")
    'give arch=file.py:factory, or download=True; normalize= would settle it'
    """

    def said(match: re.Match[str]) -> str:
        name, value = match[1], match[2] or ""
        if name in _FLAGS:
            return f"{_FLAGS[name]}=True" + (f" {value}" if value else "")
        return f"{name.replace('-', '_')}={value}"

    return _OPTION.sub(said, text)
