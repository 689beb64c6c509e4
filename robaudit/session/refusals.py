"""Errors that end one checkpoint and not the others, and what an interrupt leaves behind."""

from __future__ import annotations

from pathlib import Path

from robaudit.engine.raised import blame, is_foreign, is_memory
from robaudit.errors import Interrupted, NotMeasuredError, RobauditError


def refusal_of(error: BaseException) -> RobauditError | None:
    """The error of one checkpoint alone; ``None`` where it must end the whole command."""
    if isinstance(error, RobauditError):
        return error
    if is_memory(error):
        return NotMeasuredError("out of memory", "A smaller --batch-size may fit.")
    if not is_foreign(error):
        return None
    return RobauditError(f"internal error: {blame(error)}", "Please report this.")


def interrupted(state: Path | None) -> Interrupted:
    """The interrupt, with the finished pieces that ``state`` has."""
    interrupt = Interrupted()
    kept = 0 if state is None else sum(1 for _ in state.rglob("[!.]*.safetensors"))  # no drafts
    if kept:
        pieces = "piece of it is" if kept == 1 else "pieces of it are"
        interrupt.kept = f"no report was written, but {kept} finished {pieces} kept in {state}"
    return interrupt
