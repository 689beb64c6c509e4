"""Results of the calls in a pickle: tensors and plain containers exactly, the rest as records.

Nothing is called. A call whose result is not known exactly becomes an :class:`~.values.Opaque`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from robaudit.checkpoints.files.values import (
    ITEM_SIZES,
    Bag,
    Global,
    MalformedPickleError,
    Opaque,
    SymbolicTensor,
    checked_key,
    tensor_from,
)

_PLAIN_TENSORS = frozenset(
    {
        "torch.Tensor",
        "torch._tensor.Tensor",
        "torch.nn.Parameter",
        "torch.nn.parameter.Parameter",
        "torch.nn.parameter.Buffer",
    }
)
_TYPED = "torch._tensor._rebuild_from_type_v2"


def call(function: Any, arguments: Any) -> Any:
    """What ``function(*arguments)`` describes.

    Raises:
        MalformedPickleError: a known function has arguments that torch never writes.
    """
    if not isinstance(function, Global) or not isinstance(arguments, tuple):
        return Opaque("object")
    if function.label == _TYPED and len(arguments) == 4:
        rebuild, kind, inner, _ = arguments
        if isinstance(rebuild, Global) and rebuild.label == _TYPED:
            raise MalformedPickleError("calls are nested too deeply")
        if isinstance(kind, Global) and kind.label in _PLAIN_TENSORS:
            return call(rebuild, inner)
        what = kind.label if isinstance(kind, Global) else "?"
        return Opaque(f"a tensor of the class {what}", arguments)
    known = KNOWN.get(function.label)
    return known(arguments) if known else Opaque(function.label, arguments)


def new(kind: Any, arguments: Any) -> Any:
    """What ``kind.__new__(kind, *arguments)`` describes: dictionaries and sets begin empty."""
    if not isinstance(kind, Global) or not isinstance(arguments, tuple):
        return Opaque("object")
    if kind.label in DICTIONARIES:
        return {}
    return Bag([]) if kind.label == "builtins.set" else Opaque(kind.label, arguments)


def _tensor(arguments: tuple[Any, ...]) -> SymbolicTensor | Opaque:
    if len(arguments) < 4:
        raise MalformedPickleError("a tensor lacks its shape")
    if _is_changed(arguments[6:]):
        return Opaque("a conjugated or negated tensor")
    storage, offset, shape, stride = arguments[:4]
    return tensor_from(storage, offset, shape, stride)


def _tensor_v3(arguments: tuple[Any, ...]) -> SymbolicTensor | Opaque:
    dtype = arguments[6] if len(arguments) > 6 else None
    if not isinstance(dtype, Global) or dtype.module != "torch" or dtype.name not in ITEM_SIZES:
        raise MalformedPickleError("a tensor has an unknown dtype")
    if _is_changed(arguments[7:]):
        return Opaque("a conjugated or negated tensor")
    storage, offset, shape, stride = arguments[:4]
    return tensor_from(storage, offset, shape, stride, dtype.name)


def _is_changed(metadata: tuple[Any, ...]) -> bool:
    """Whether the elements are not those in the file, but conjugated or negated."""
    return any(entry is not None and entry != {} for entry in metadata)


def _parameter(arguments: tuple[Any, ...]) -> Any:
    """A parameter is the tensor that it wraps."""
    if arguments and isinstance(arguments[0], SymbolicTensor):
        return arguments[0]
    return Opaque("a parameter of something that is no plain tensor")


def _same(arguments: tuple[Any, ...]) -> Any:
    if not arguments:
        raise MalformedPickleError("a call lacks its argument")
    return arguments[0]


def _size(arguments: tuple[Any, ...]) -> Any:
    sizes = _same(arguments)
    return tuple(sizes) if isinstance(sizes, list | tuple) else Opaque("torch.Size", arguments)


def _mapping(arguments: tuple[Any, ...]) -> dict[Any, Any]:
    if not arguments:
        return {}
    pairs = arguments[0]
    if isinstance(pairs, dict):
        return dict(pairs)
    if not isinstance(pairs, list | tuple) or not all(
        isinstance(pair, list | tuple) and len(pair) == 2 for pair in pairs
    ):
        raise MalformedPickleError("a dictionary is made of something that is no list of pairs")
    return {checked_key(pair[0]): pair[1] for pair in pairs}


def _default_mapping(arguments: tuple[Any, ...]) -> dict[Any, Any]:
    return _mapping(arguments[1:])


def _set(arguments: tuple[Any, ...]) -> Bag | Opaque:
    members = arguments[0] if arguments else ()
    if not isinstance(members, list | tuple):
        return Opaque("builtins.set", arguments)
    for member in members:
        checked_key(member)
    return Bag(list(members))


def _bytes(arguments: tuple[Any, ...]) -> bytes | Opaque:
    """Bytes in a pickle of protocol 2: text of the first 256 characters, to be encoded."""
    if len(arguments) == 2 and isinstance(arguments[0], str) and arguments[1] == "latin1":
        try:
            return arguments[0].encode("latin1")
        except UnicodeEncodeError:
            raise MalformedPickleError("bytes are written with characters above 255") from None
    return Opaque("_codecs.encode", arguments)


# Configuration classes that are dictionaries.
_CONFIGURATIONS = (
    "easydict.EasyDict",
    "lightning.fabric.utilities.data.AttributeDict",
    "lightning.pytorch.utilities.parsing.AttributeDict",
    "lightning_fabric.utilities.data.AttributeDict",
    "pytorch_lightning.utilities.parsing.AttributeDict",
)

KNOWN: dict[str, Callable[[tuple[Any, ...]], Any]] = {
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _tensor_v3,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
    "torch.nn.parameter.Parameter": _parameter,
    "torch.Size": _size,
    "torch.jit._pickle.build_boollist": _same,
    "torch.jit._pickle.build_doublelist": _same,
    "torch.jit._pickle.build_intlist": _same,
    "torch.jit._pickle.build_tensorlist": _same,
    "torch.jit._pickle.restore_type_tag": _same,
    "collections.OrderedDict": _mapping,
    "collections.Counter": _mapping,
    "collections.defaultdict": _default_mapping,
    "builtins.dict": _mapping,
    "builtins.set": _set,
    "builtins.frozenset": _set,
    "_codecs.encode": _bytes,
    **dict.fromkeys(_CONFIGURATIONS, _mapping),
}
"""What harmless calls give, by the name of the function or class."""

DICTIONARIES = frozenset(
    label for label, known in KNOWN.items() if known in (_mapping, _default_mapping)
)
"""The classes whose instances are read as plain dictionaries."""
