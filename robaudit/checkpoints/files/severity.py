"""How dangerous the names are that a pickle asks for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from robaudit.checkpoints.files.calls import KNOWN
from robaudit.checkpoints.files.values import ITEM_SIZES, STORAGE_DTYPES

FindingSeverity = Literal["harmless", "unknown", "dangerous"]
SEVERITIES: tuple[FindingSeverity, ...] = ("dangerous", "unknown", "harmless")
"""The worst first, as findings are listed."""


@dataclass(frozen=True)
class Finding:
    """A name a pickle asks to have imported.

    ``harmless``: rebuilds tensors, numbers, containers or settings and nothing else.
    ``dangerous``: can run code, commands or programs. ``unknown``: anything else; robaudit runs
    none of it, but another program that loads the file would.
    """

    module: str
    name: str
    severity: FindingSeverity

    @property
    def full_name(self) -> str:
        return f"{self.module}.{self.name}"


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_TYPES = _words(
    "bool bytearray bytes complex dict float frozenset int list object range set slice str tuple"
)
_BY_MODULE = {
    "argparse": "Namespace",
    "builtins": " ".join(_TYPES),
    "collections": "UserDict deque",
    "copyreg": "_reconstructor",
    "datetime": "date datetime time timedelta timezone",
    "decimal": "Decimal",
    "fractions": "Fraction",
    "numpy": "dtype ndarray bool_ int8 int16 int32 int64 float16 float32 float64",
    "pathlib": "Path PosixPath PurePath PurePosixPath PureWindowsPath WindowsPath",
    "pathlib._local": "Path PosixPath PurePath PurePosixPath PureWindowsPath WindowsPath",
    "types": "SimpleNamespace",
    "uuid": "SafeUUID UUID",
    "zoneinfo": "ZoneInfo ZoneInfo._unpickle",
    # Configurations and records of training frameworks.
    "ml_collections.config_dict.config_dict": "ConfigDict FieldReference FrozenConfigDict",
    "omegaconf.base": "ContainerMetadata Metadata Node",
    "omegaconf.dictconfig": "DictConfig",
    "omegaconf.listconfig": "ListConfig",
    "omegaconf.nodes": "AnyNode BooleanNode BytesNode FloatNode IntegerNode PathNode StringNode",
    "typing": "Any",
    # torch's own way to write tensors.
    "torch": " ".join([*STORAGE_DTYPES, *ITEM_SIZES, "Size", "Tensor", "device", "dtype"]),
    "torch.cuda": " ".join(STORAGE_DTYPES),
    "torch._tensor": "Tensor _rebuild_from_type_v2",
    "torch.nn": "Parameter",
    "torch.nn.parameter": "Buffer Parameter",
    "torch.serialization": "_get_layout",
    "torch.storage": "TypedStorage UntypedStorage",
}
# numpy moved its modules in version 2; files of either are read the same.
for _numpy in ("numpy.core", "numpy._core"):
    _BY_MODULE[f"{_numpy}.multiarray"] = "_reconstruct scalar"
    _BY_MODULE[f"{_numpy}.numeric"] = "_frombuffer"

_HARMLESS = frozenset(
    (module, name) for module, names in _BY_MODULE.items() for name in names.split()
).union(tuple(label.rsplit(".", 1)) for label in KNOWN)

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
    "distutils setuptools pip ensurepip venv inspect gc shelve sqlite3 cffi numexpr types copyreg "
    "ssl ast dis linecache mmap readline idlelib lib2to3 unittest IPython"
)
_TORCH_LOADERS = frozenset(
    {
        "torch.load",
        "torch.serialization.load",
        "torch.jit.load",
        "torch.jit._serialization.load",
        "torch.package.PackageImporter",
        "numpy.load",
        "numpy.lib.npyio.load",
        "numpy.lib._npyio_impl.load",
        "numpy.fromfile",
        "numpy.save",
    }
)


def severity(module: str, name: str) -> FindingSeverity:
    """Judge one name.

    >>> severity("collections", "OrderedDict"), severity("os", "system"), severity("my", "Net")
    ('harmless', 'dangerous', 'unknown')
    """
    if (module, name) in _HARMLESS:
        return "harmless"
    if module == "?" or f"{module}.{name}" in _TORCH_LOADERS:
        return "dangerous"
    parts = f"{module}.{name}".split(".")
    if parts[:2] in (["torch", "hub"], ["torch", "ops"]):
        return "dangerous"
    if not _DANGEROUS_ANYWHERE.isdisjoint(parts):
        return "dangerous"
    return "dangerous" if parts[0] in _DANGEROUS_MODULES else "unknown"
