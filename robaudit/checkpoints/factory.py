"""``--arch module:factory`` and ``--arch file.py:factory``: the user's own code builds the network.

Running that code is what the user asks for; a checkpoint can never ask for it.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import TypeAlias

import torch
from torch import nn

from robaudit.engine.raised import is_foreign
from robaudit.errors import CheckpointError, UsageError, error_line

_PARALLEL = (nn.DataParallel, nn.parallel.DistributedDataParallel)
_LIKE = (
    "AveragedModel",
    "DataParallel",
    "DDP",
    "DistributedDataParallel",
    "FullyShardedDataParallel",
)
_LIBRARIES = ("torchvision:", "timm:")
Factory: TypeAlias = Callable[[], nn.Module]
"""Builds a network, without arguments: a function or a class."""

_FORM = "Write it as --arch module:factory or --arch path/to/file.py:factory."


def unwrapped(network: nn.Module) -> nn.Module:
    """The network in ``torch.compile``'s, DataParallel's and the like's wrappers.

    It computes the same; a compiled network has no second derivatives.
    """
    while True:
        inner = getattr(network, "_orig_mod", None)
        if inner is None and isinstance(network, _PARALLEL):
            inner = network.module
        if inner is None and type(network).__name__ in _LIKE:
            inner = getattr(network, "module", None)
        if not isinstance(inner, nn.Module):
            return network
        network = inner


def is_code(arch: str | Factory) -> bool:
    """Whether ``--arch`` is the user's code, not the name of an architecture."""
    if not isinstance(arch, str):
        return True
    return (":" in arch or arch.endswith(".py")) and not arch.startswith(_LIBRARIES)


def called(arch: str | Factory) -> str:
    """The name of a network that this code builds."""
    return arch if isinstance(arch, str) else getattr(arch, "__name__", type(arch).__name__)


def factory(arch: str | Factory) -> Callable[[], nn.Module]:
    """The function that builds the network ``--arch`` names.

    Building the network leaves the random state unchanged.

    Args:
        arch: ``module:factory``, ``file.py:factory`` or, in Python, the factory itself; it is a
            function or an ``nn.Module`` class that needs no arguments.

    Raises:
        UsageError: there is no such file, module or attribute, or it cannot be called; raised by
            the returned function if the result is not an ``nn.Module``.
        CheckpointError: the code fails, here or when the returned function is called.
    """
    folder, maker = _maker(arch)
    name = called(arch)

    def build() -> nn.Module:
        with _importable(folder), torch.random.fork_rng(devices=[]):
            try:
                network = maker()
            except BaseException as error:
                raise _failed(f"--arch {name}", error) from error
        if not isinstance(network, nn.Module):
            raise UsageError(
                f"--arch {name} gave a {type(network).__name__}, not a torch.nn.Module",
                "The factory must return the network.",
            )
        if any(nn.parameter.is_lazy(p) for p in (*network.parameters(), *network.buffers())):
            raise UsageError(
                f"--arch {name} gave a network with lazy layers, whose shapes are still unknown",
                "Pass one image through it in the factory.",
            )
        return network

    return build


def _maker(arch: str | Factory) -> tuple[Path, Callable[[], object]]:
    """The function, and the folder that its imports are looked for in first."""
    if isinstance(arch, nn.Module):
        raise UsageError(
            f"--arch is a {type(arch).__name__}, not a function that builds one",
            "Write lambda: network, or load the network itself.",
        )
    if not isinstance(arch, str):
        if not callable(arch):
            raise UsageError(f"--arch is a {type(arch).__name__}", _FORM)
        return Path(), arch
    place, _, name = arch.rpartition(":")
    if not place or not name:
        raise UsageError(f"--arch {arch} names no factory", _FORM)
    folder = Path(place).parent if place.endswith(".py") else Path()
    with _importable(folder):
        module = _from_file(Path(place)) if place.endswith(".py") else _from_module(place)
    made: object = module
    for part in name.split("."):
        made = getattr(made, part, None)
    if made is None:
        raise UsageError(f"--arch {arch}: {place} has no {name!r}", _FORM)
    if isinstance(made, nn.Module) or not callable(made):
        raise UsageError(
            f"--arch {arch}: {name!r} is no function or class",
            "Name a function without arguments that returns the network.",
        )
    maker: Callable[[], object] = made
    return folder, maker


def _from_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise UsageError(f"--arch: no such file: {path}", _FORM)
    # A name of its own, so that a file called torch.py or utils.py hides no module.
    name = f"robaudit_arch_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise UsageError(f"--arch: {path} is no Python file", _FORM)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and the like look their module up while it is made
    try:
        spec.loader.exec_module(module)
    except BaseException as error:
        sys.modules.pop(name, None)
        raise _failed(f"--arch: {path}", error) from error
    return module


def _from_module(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and (name == error.name or name.startswith(f"{error.name}.")):
            raise UsageError(f"--arch: there is no module {name!r}", _FORM) from None
        raise _failed(f"--arch: {name}", error) from error
    except BaseException as error:
        raise _failed(f"--arch: {name}", error) from error


def _failed(what: str, error: BaseException) -> BaseException:
    if not is_foreign(error):
        return error
    return CheckpointError(f"{what} failed: {error_line(error)}", "Run it in Python to see where.")


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """The user's folder first on the import path, as when Python runs a file in it."""
    entry = str(folder.resolve())
    sys.path.insert(0, entry)
    try:
        yield
    finally:
        if entry in sys.path:
            sys.path.remove(entry)
