"""What a network, or a library that runs it, raises: whether it is theirs, and in what words."""

from __future__ import annotations

import signal
import sysconfig
from functools import cache
from pathlib import Path
from traceback import walk_tb

import numpy as np
import scipy
import torch

from robaudit.errors import Interrupted, NotMeasuredError, RobauditError

# Packages by whose code a network is attacked or measured, and not made.
_LIBRARIES = ("pyautoattack", "autoattack", "pyhessian")
_TORCHSCRIPT = "The following operation failed in the TorchScript interpreter."


def is_foreign(error: BaseException) -> bool:
    """Whether it is what a network did, of which nothing else should fall.

    Not foreign are robaudit's own refusals, want of memory, and the user's interrupt. A network can
    raise ``SystemExit``, ``GeneratorExit`` and ``KeyboardInterrupt`` as well; where the user's
    arrives as :class:`~robaudit.errors.Interrupted`, a plain ``KeyboardInterrupt`` is its own.
    """
    if isinstance(error, RobauditError | Interrupted) or is_memory(error):
        return False
    if isinstance(error, KeyboardInterrupt):
        return signal.getsignal(signal.SIGINT) is not signal.default_int_handler
    return isinstance(error, Exception | SystemExit | GeneratorExit)


def fails_again(error: BaseException) -> bool:
    """Whether a question beside the measurements may go without an answer for it.

    What a network raises it raises again where it is measured, and there it is said.
    """
    return is_foreign(error) or is_memory(error) or isinstance(error, NotMeasuredError)


def is_memory(error: BaseException) -> bool:
    """Whether memory ran out, on a GPU or beside it."""
    if isinstance(error, torch.cuda.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error)


def said(error: BaseException) -> str:
    """The exception's type and message in one line.

    >>> said(ValueError("no images of mine"))
    'ValueError: no images of mine'
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    kind = type(error).__name__
    if not lines:
        return kind
    # Of a TorchScript program the first line says nothing, and the last what happened.
    text = lines[-1].removeprefix(f"{kind}: ") if lines[0] == _TORCHSCRIPT else lines[0]
    return f"{kind}: {text[:200]}"


def blame(error: BaseException) -> str:
    """Who raised it, what, and at which line of whose code, in one line.

    The innermost line that is neither robaudit's nor a general library's is the network's own; the
    architectures that robaudit knows are networks, too.
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
        return f"{owner} raised {said(error)} ({place})"
    return f"{said(error)}, while the network was run" + (f" (at {own})" if own else "")


@cache
def _roots() -> tuple[tuple[Path, str], ...]:
    """Folders of code that is nobody's network, the deeper ones first, and whose they are."""
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
    """Whose a source file is, and a short name for it."""
    if file.startswith("<"):  # code without a file, as of importlib or a dataclass
        return "general", file
    path = Path(file).resolve()
    for root, owner in _roots():
        if path.is_relative_to(root):
            inside = root.name in (*_LIBRARIES, "robaudit", "architectures")
            return owner, path.relative_to(root.parent if inside else root).as_posix()
    return "the network", path.name
