"""A pickle machine that builds descriptions: it follows the opcodes and calls nothing.

Python's own unpickler imports the names in a pickle and calls them; this one keeps names as
:class:`~.values.Global` and calls as :class:`~.values.Opaque`. Steps, bytes and copies are bounded,
so the cost of a malicious pickle is limited by its length.
"""

from __future__ import annotations

import pickletools
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections.abc import Callable
from typing import IO, Any

from robaudit.checkpoints.files.calls import call, new
from robaudit.checkpoints.files.values import (
    Bag,
    Global,
    MalformedPickleError,
    Opaque,
    Storage,
    SymbolicTensor,
    checked_key,
    storage_from,
)

MAX_STEPS = 3_000_000
MAX_BYTES = 256 << 20

_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}


def asked_name(module: str, name: str) -> Global:
    """The name a pickle asks for, names of Python 2 translated by Python's own table."""
    if (module, name) in NAME_MAPPING:
        return Global(*NAME_MAPPING[module, name])
    return Global(IMPORT_MAPPING.get(module, module), name)


class BoundedReader:
    """The methods of a file that :func:`pickletools.genops` needs, with a limit on bytes read."""

    def __init__(self, file: IO[bytes], limit: int = MAX_BYTES) -> None:
        self._file = file
        self._left = limit

    def read(self, n: int) -> bytes:
        self._spend(n)
        return self._file.read(n)

    def readline(self) -> bytes:
        line = self._file.readline(self._left + 1)
        self._spend(len(line))
        return line

    def tell(self) -> int:
        return self._file.tell()

    def _spend(self, n: int) -> None:
        self._left -= n
        if self._left < 0:
            raise MalformedPickleError(f"the pickle is longer than {MAX_BYTES >> 20} MB")


class Machine:
    """Runs one pickle symbolically.

    Attributes:
        globals: every name asked for so far (the keys), also if :meth:`run` fails later. Unlike a
            scan for opcodes it includes memoised strings and names assembled on the stack.
        storages: every storage mentioned, by key.
    """

    def __init__(self) -> None:
        self.globals: dict[Global, None] = {}
        self.storages: dict[str, Storage] = {}
        self._stack: list[Any] = []
        self._outer: list[list[Any]] = []
        self._memo: dict[int, Any] = {}
        self._copied = 0

    def run(self, file: IO[bytes], limit: int = MAX_BYTES) -> Any:
        """The description of the pickled object; ``file`` is left just behind the pickle.

        Raises:
            MalformedPickleError: the pickle is cut off, breaks the rules or is too long.
        """
        try:
            for steps, (opcode, argument, _) in enumerate(
                pickletools.genops(BoundedReader(file, limit))  # type: ignore[arg-type]
            ):
                if steps > MAX_STEPS:
                    raise MalformedPickleError(f"the pickle has more than {MAX_STEPS} steps")
                if opcode.name == "STOP":
                    return self._stack.pop()
                self._step(opcode.name, argument)
        except MalformedPickleError:
            raise
        except (ValueError, IndexError, KeyError, TypeError, OverflowError) as error:
            raise MalformedPickleError(f"the pickle is damaged ({error})") from None
        raise MalformedPickleError("the pickle has no end")

    def _step(self, name: str, argument: Any) -> None:
        if name in _CONSTANTS:
            self._stack.append(_CONSTANTS[name])
        elif name in _HANDLERS:
            _HANDLERS[name](self, argument)
        elif name in _LITERALS:
            self._stack.append(argument)
        elif name not in ("PROTO", "FRAME", "READONLY_BUFFER"):
            raise MalformedPickleError(f"the pickle uses the opcode {name}")

    def _ask(self, module: Any, name: Any) -> None:
        if not isinstance(module, str) or not isinstance(name, str):
            # A name that exists only at run time cannot be judged, and is reported as unknown.
            module, name = "?", "?"
        found = asked_name(module, name)
        self.globals[found] = None
        self._stack.append(found)

    def _pop_mark(self) -> list[Any]:
        items, self._stack = self._stack, self._outer.pop()
        return items

    def _global(self, argument: str) -> None:
        module, _, name = argument.partition(" ")
        self._ask(module, name)

    def _stack_global(self, _: Any) -> None:
        name, module = self._stack.pop(), self._stack.pop()
        self._ask(module, name)

    def _extension(self, argument: int) -> None:
        self._ask("copyreg", f"extension {argument}")

    def _inst(self, argument: str) -> None:
        arguments = tuple(self._pop_mark())
        self._global(argument)
        self._make(call, self._stack.pop(), arguments)

    def _obj(self, _: Any) -> None:
        function, *arguments = self._pop_mark()
        self._make(call, function, tuple(arguments))

    def _reduce(self, _: Any) -> None:
        arguments, function = self._stack.pop(), self._stack.pop()
        self._make(call, function, arguments)

    def _newobj(self, _: Any) -> None:
        arguments, kind = self._stack.pop(), self._stack.pop()
        self._make(new, kind, arguments)

    def _newobj_ex(self, _: Any) -> None:
        self._stack.pop()
        self._newobj(None)

    def _make(self, maker: Callable[[Any, Any], Any], function: Any, arguments: Any) -> None:
        made = maker(function, arguments)
        if isinstance(made, dict | list | tuple | bytes):
            # Four bytes of a pickle can ask for another copy of the largest dictionary in it.
            self._copied += len(made)
        elif isinstance(made, Bag):
            self._copied += len(made.items)
        if self._copied > MAX_STEPS:
            raise MalformedPickleError("the pickle copies too much")
        self._stack.append(made)

    def _persistent(self, _: Any) -> None:
        value = storage_from(self._stack.pop())
        if isinstance(value, Storage):
            first = self.storages.setdefault(value.key, value)
            if first.nbytes != value.nbytes:
                raise MalformedPickleError("a storage has two sizes")
        self._stack.append(value)

    def _build(self, _: Any) -> None:
        state, target = self._stack.pop(), self._stack[-1]
        if isinstance(target, Opaque):
            target.state = state
        elif isinstance(target, SymbolicTensor):
            raise MalformedPickleError("the pickle changes a tensor after it was made")
        # Attributes of a dictionary (a state dict's _metadata, say) hold nothing to report.

    def _mark(self, _: Any) -> None:
        self._outer.append(self._stack)
        self._stack = []

    def _pop(self, _: Any) -> None:
        if self._stack:
            self._stack.pop()
        else:
            self._pop_mark()

    def _put(self, argument: int) -> None:
        self._memo[argument] = self._stack[-1]

    def _memoize(self, _: Any) -> None:
        self._memo[len(self._memo)] = self._stack[-1]

    def _tuple(self, count: int) -> None:
        if len(self._stack) < count:
            raise MalformedPickleError("the pickle takes more from its stack than it put there")
        self._stack[-count:] = [tuple(self._stack[-count:])]

    def _extend(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if isinstance(target, list):
            target.extend(items)
        elif isinstance(target, Opaque):
            target.items.extend(items)
        else:
            raise MalformedPickleError("the pickle appends to something that is no list")

    def _set_items(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if len(items) % 2 or not isinstance(target, dict | Opaque):
            raise MalformedPickleError("the pickle sets items of something that is no dictionary")
        pairs = zip(items[::2], items[1::2], strict=True)
        if isinstance(target, dict):
            for key, value in pairs:
                target[checked_key(key)] = value
        else:
            target.items.extend(pairs)

    def _take(self, count: int) -> list[Any]:
        items = [self._stack.pop() for _ in range(count)]
        return items[::-1]

    def _push(self, value: Any) -> None:
        self._stack.append(value)


def _add_to_set(machine: Machine, items: list[Any]) -> None:
    target = machine._stack[-1]
    for item in items:
        checked_key(item)
    if not isinstance(target, Bag | Opaque):
        raise MalformedPickleError("the pickle adds to something that is no set")
    target.items.extend(items)


_LITERALS = frozenset(
    opcode.name
    for opcode in pickletools.opcodes
    if opcode.arg is not None
    and len(opcode.stack_after) == 1
    and not opcode.stack_before
    and opcode.stack_after[0].name not in ("any", "mark")
)
"""The opcodes that put their own argument on the stack."""

_HANDLERS: dict[str, Callable[[Machine, Any], None]] = {
    "GLOBAL": Machine._global,
    "STACK_GLOBAL": Machine._stack_global,
    "INST": Machine._inst,
    "OBJ": Machine._obj,
    "REDUCE": Machine._reduce,
    "NEWOBJ": Machine._newobj,
    "NEWOBJ_EX": Machine._newobj_ex,
    "BUILD": Machine._build,
    "EXT1": Machine._extension,
    "EXT2": Machine._extension,
    "EXT4": Machine._extension,
    "PERSID": lambda m, _: m._push(Opaque("persistent object")),
    "BINPERSID": Machine._persistent,
    "NEXT_BUFFER": lambda m, _: m._push(Opaque("buffer")),
    "MARK": Machine._mark,
    "POP": Machine._pop,
    "POP_MARK": lambda m, _: m._pop_mark().clear(),
    "DUP": lambda m, _: m._push(m._stack[-1]),
    "PUT": Machine._put,
    "BINPUT": Machine._put,
    "LONG_BINPUT": Machine._put,
    "MEMOIZE": Machine._memoize,
    "GET": lambda m, a: m._push(m._memo[a]),
    "BINGET": lambda m, a: m._push(m._memo[a]),
    "LONG_BINGET": lambda m, a: m._push(m._memo[a]),
    "EMPTY_LIST": lambda m, _: m._push([]),
    "EMPTY_DICT": lambda m, _: m._push({}),
    "EMPTY_SET": lambda m, _: m._push(Bag([])),
    "LIST": lambda m, _: m._push(m._pop_mark()),
    "DICT": lambda m, _: _dict(m),
    "TUPLE": lambda m, _: m._push(tuple(m._pop_mark())),
    "FROZENSET": lambda m, _: m._push(Bag(m._pop_mark())),
    "TUPLE1": lambda m, _: m._tuple(1),
    "TUPLE2": lambda m, _: m._tuple(2),
    "TUPLE3": lambda m, _: m._tuple(3),
    "APPEND": lambda m, _: m._extend(m._take(1)),
    "APPENDS": lambda m, _: m._extend(m._pop_mark()),
    "SETITEM": lambda m, _: m._set_items(m._take(2)),
    "SETITEMS": lambda m, _: m._set_items(m._pop_mark()),
    "ADDITEMS": lambda m, _: _add_to_set(m, m._pop_mark()),
}


def _dict(machine: Machine) -> None:
    items = machine._pop_mark()
    machine._push({})
    machine._set_items(items)
