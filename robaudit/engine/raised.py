"""Exceptions raised by a network or by a library that runs it: their origin and a description."""

from __future__ import annotations

import signal
import sysconfig
from functools import cache
from pathlib import Path
from traceback import walk_tb

import numpy as np
import scipy
import torch

from robaudit.errors import Interrupted, NotMeasuredError, RobauditError, error_line

# Packages that attack or measure networks and do not define them.
_LIBRARIES = ("pyautoattack", "autoattack", "pyhessian")


def is_foreign(error: BaseException) -> bool:
    """Whether the exception comes from a network's code, and must not end other measurements.

    Robaudit's own errors, running out of memory and the user's interrupt are not foreign. A network
    can also raise ``SystemExit``, ``GeneratorExit`` and ``KeyboardInterrupt``; where the user's
    interrupt is raised as :class:`~robaudit.errors.Interrupted`, a plain ``KeyboardInterrupt`` is
    the network's.
    """
    if isinstance(error, RobauditError | Interrupted) or is_memory(error):
        return False
    if isinstance(error, KeyboardInterrupt):
        return signal.getsignal(signal.SIGINT) is not signal.default_int_handler
    return isinstance(error, Exception | SystemExit | GeneratorExit)


def recurs(error: BaseException) -> bool:
    """Whether an auxiliary check may ignore the exception.

    A network that raises it will raise it again in the measurement, which then reports it.
    """
    return is_foreign(error) or is_memory(error) or isinstance(error, NotMeasuredError)


def is_memory(error: BaseException) -> bool:
    """Whether memory ran out, on a GPU or on the host."""
    if isinstance(error, torch.cuda.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error)


def blame(error: BaseException) -> str:
    """The exception, the code that raised it and the line, in one line.

    The innermost line that belongs neither to robaudit nor to a general library is taken as the
    network's; robaudit's architectures count as networks.
    """
    foreign: tuple[str, str] | None = None
    own = ""
    for frame, line in walk_tb(error.__traceback__):
        owner, name = _owner(frame.f_code.co_filename)
        if owner == "robaudit":
            own = f"{name}:{line}"
        elif owner != "general":
            foreign = owner, f"{name}:{line}"
    if foreign is not None:
        owner, place = foreign
        return f"{owner} raised {error_line(error)} ({place})"
    return f"{error_line(error)}, while the network was run" + (f" (at {own})" if own else "")


@cache
def _roots() -> tuple[tuple[Path, str], ...]:
    """Folders of code and their owners, deeper folders first."""
    own = Path(__file__).resolve().parents[1]
    packages = {Path(sysconfig.get_path(name)).resolve() for name in ("purelib", "platlib")}
    general = [Path(module.__file__ or "").resolve().parent for module in (torch, np, scipy)]
    return (
        (own / "checkpoints" / "architectures", "the network"),
        (own, "robaudit"),
        *((folder, "general") for folder in general),
        *((folder / name, f"the library {name}") for folder in packages for name in _LIBRARIES),
        *((folder, "the network") for folder in packages),
        (Path(sysconfig.get_path("stdlib")).resolve(), "general"),
    )


def _owner(file: str) -> tuple[str, str]:
    """The owner of a source file, and a short name for it."""
    if file.startswith("<"):  # code without a file, as of importlib or a dataclass
        return "general", file
    path = Path(file).resolve()
    for root, owner in _roots():
        if path.is_relative_to(root):
            inside = root.name in (*_LIBRARIES, "robaudit", "architectures")
            return owner, path.relative_to(root.parent if inside else root).as_posix()
    return "the network", path.name
