"""The one exception tree: every error knows its exit code and carries advice.

The command line prints ``message`` and ``advice`` (one line each) and exits with ``exit_code``;
a library user catches :class:`RobauditError` or one of its kinds.
"""

from __future__ import annotations


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


class UsageError(RobauditError):
    """An option or argument that cannot be meant: exit code 2."""

    exit_code = 2


class NotMeasuredError(RobauditError):
    """A quantity that could not be measured on this model and data: exit code 3."""

    exit_code = 3


class CheckpointError(RobauditError):
    """A checkpoint that is unsafe, unreadable or not identified: exit code 4."""

    exit_code = 4


class DataError(RobauditError):
    """Examples that are missing, unreadable or out of range: exit code 4."""

    exit_code = 4


class Interrupted(KeyboardInterrupt):
    """Ctrl-C, or a request to end: as the command line's signal handlers raise it.

    A network can raise ``KeyboardInterrupt`` and not this.
    """
