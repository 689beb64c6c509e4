"""Exceptions of a network under attack, as reasons why something was not measured."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from robaudit.engine.raised import blame, is_foreign, is_memory
from robaudit.errors import NotMeasuredError


@contextmanager
def not_measured() -> Iterator[None]:
    """Turn whatever is raised while a network is run into :class:`NotMeasuredError`.

    That includes ``SystemExit`` and ``KeyboardInterrupt`` raised by the network. The user's
    interrupt and robaudit's own exceptions are not changed.
    """
    try:
        yield
    except BaseException as error:
        # Python turns a StopIteration of the network inside a generator into a RuntimeError.
        if isinstance(error, RuntimeError) and isinstance(error.__cause__, StopIteration):
            error = error.__cause__
        if is_memory(error):
            raise NotMeasuredError(
                "out of memory; fewer examples (--n) or a smaller --batch-size may fit"
            ) from None
        if not is_foreign(error):
            raise
        raise NotMeasuredError(blame(error)) from error
