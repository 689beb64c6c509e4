"""How bad it is that a pickle asks for a name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from robaudit.checkpoints.values import ITEM_SIZES, STORAGE_DTYPES

Severity = Literal["harmless", "unknown", "dangerous"]
SEVERITIES: tuple[Severity, ...] = ("dangerous", "unknown", "harmless")
"""The worst first, as findings are listed."""


@dataclass(frozen=True)
class Finding:
    """A name a pickle asks to have imported.

    ``harmless``: rebuilds tensors, numbers or dictionaries and nothing else. ``dangerous``: can
    run code, commands or programs. ``unknown``: anything else, which is not to be trusted either.
    """

    module: str
    name: str
    severity: Severity

    @property
    def full_name(self) -> str:
        return f"{self.module}.{self.name}"


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


NUMPY_STAND_INS = (
    ("numpy", "dtype"),
    ("numpy", "ndarray"),
    ("numpy.core.multiarray", "scalar"),
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "scalar"),
    ("numpy._core.multiarray", "_reconstruct"),
)
"""Numbers beside the weights (a best accuracy, say): read as inert values, never by numpy."""

_HARMLESS = frozenset(
    {
        *NUMPY_STAND_INS,
        ("collections", "OrderedDict"),
        ("collections", "Counter"),
        ("builtins", "set"),
        ("_codecs", "encode"),
        ("torch", "Size"),
        ("torch", "device"),
        ("torch.nn.parameter", "Parameter"),
        ("torch._tensor", "_rebuild_from_type_v2"),
        ("torch.storage", "UntypedStorage"),
        *(
            ("torch._utils", f"_rebuild_{kind}")
            for kind in ("tensor", "tensor_v2", "tensor_v3", "parameter", "parameter_with_state")
        ),
        *(
            (module, storage)
            for module in ("torch", "torch.cuda")
            for storage in STORAGE_DTYPES
            if storage != "UntypedStorage"
        ),
        *(("torch", dtype) for dtype in ITEM_SIZES),
    }
)

# Anywhere in a dotted name: a pickle can reach os as an attribute of nearly every module.
_DANGEROUS_ANYWHERE = _words(
    "os posix nt posixpath ntpath subprocess sys importlib ctypes runpy pty socket shutil "
    "eval exec system popen __import__ __subclasses__ __globals__ __builtins__ _load_from_bytes "
    "cpp_extension pickle _pickle cPickle cloudpickle dill joblib runstring"
)
_DANGEROUS_MODULES = _words(
    "marshal builtins code codeop commands imp types operator _operator functools _functools "
    "timeit profile cProfile pdb bdb doctest pydoc webbrowser urllib http ftplib smtplib requests "
    "asyncio multiprocessing concurrent threading signal tempfile io _io zipimport pkgutil "
    "distutils setuptools pip ensurepip venv inspect gc shelve sqlite3 cffi numexpr"
)
_TORCH_LOADERS = frozenset(
    {"torch.load", "torch.serialization.load", "torch.jit.load", "torch.hub.load"}
)
_BUILTIN_TYPES = _words(
    "bool bytearray bytes complex dict float frozenset int list object range slice str tuple "
    "Exception ValueError print len"
)


def severity(module: str, name: str) -> Severity:
    """Judge one name.

    >>> severity("collections", "OrderedDict"), severity("os", "system"), severity("my", "Net")
    ('harmless', 'dangerous', 'unknown')
    """
    if (module, name) in _HARMLESS:
        return "harmless"
    if module == "?" or f"{module}.{name}" in _TORCH_LOADERS:
        return "dangerous"
    parts = f"{module}.{name}".split(".")
    if not _DANGEROUS_ANYWHERE.isdisjoint(parts):
        return "dangerous"
    if module == "builtins" and name in _BUILTIN_TYPES:
        return "unknown"
    return "dangerous" if parts[0] in _DANGEROUS_MODULES else "unknown"
