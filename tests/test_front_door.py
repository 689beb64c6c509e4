"""The public API documents itself: every parameter, what comes back, what is raised, an example.

One style throughout: Google sections, as ``napoleon`` and ``mkdocstrings`` read them.
"""

import ast
import dataclasses
import inspect
import re
import textwrap
from types import ModuleType

import pytest
from torch import nn

import robaudit
from robaudit import errors

_SECTION = re.compile(r"^(Args|Attributes|Returns|Raises|Source|Sources|Example|Yields):", re.M)
_ENTRY = re.compile(r"^ {4}(\S[^:]*):(?: |$)", re.M)


def public():
    """Every public function, class and method by its name, ``method`` telling the latter."""
    for name in robaudit.__all__:
        found = getattr(robaudit, name)
        if isinstance(found, ModuleType):
            for inner in found.__all__:
                yield from described(f"{name}.{inner}", getattr(found, inner))
        else:
            yield from described(name, found)


def described(name, found):
    if not (inspect.isfunction(found) or inspect.isclass(found)):
        return
    yield name, found, False
    if inspect.isclass(found):
        for attribute, method in vars(found).items():
            if not attribute.startswith("_") and attribute != "forward":
                method = getattr(method, "__func__", method)
                if inspect.isfunction(method) and method.__module__.startswith("robaudit"):
                    yield f"{name}.{attribute}", method, True


NAMES = {name: (found, method) for name, found, method in public()}


def sections(doc):
    """Section title to its text, unindented; ``>>>`` lines count as an example."""
    marks = list(_SECTION.finditer(doc))
    ends = [mark.start() for mark in marks[1:]] + [len(doc)]
    return {mark[1]: doc[mark.end() : end] for mark, end in zip(marks, ends, strict=False)}


def entries(text):
    """The names that a section documents, ``x, y: ...`` being two."""
    return {name.strip().lstrip("*") for entry in _ENTRY.findall(text) for name in entry.split(",")}


def raised(function):
    """The kinds of robaudit's errors that the function's own body raises."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(inspect.unwrap(function))))
    names = {
        node.exc.func.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Raise)
        and isinstance(node.exc, ast.Call)
        and isinstance(node.exc.func, ast.Name)
    }
    return {name for name in names if hasattr(errors, name)}


def fields(kind):
    if dataclasses.is_dataclass(kind):
        return {f.name for f in dataclasses.fields(kind) if not f.name.startswith("_")}
    return set(getattr(kind, "model_fields", ()))


def missing(found, method):
    doc = inspect.getdoc(found) or ""
    if not doc:
        return ["a docstring"]
    told = sections(doc)
    documented = entries(told.get("Args", ""))
    lacking = []
    if inspect.isclass(found):
        wanted = fields(found)
        for kind in inspect.getmro(found):  # a subclass need not repeat what it inherits
            documented |= entries(sections(inspect.getdoc(kind) or "").get("Attributes", ""))
        if not wanted and issubclass(found, nn.Module | Exception):
            wanted = set(inspect.signature(found.__init__).parameters) - {"self"}
    else:
        signature = inspect.signature(inspect.unwrap(found))
        wanted = set(signature.parameters) - {"self", "cls"}
        if signature.return_annotation not in ("None", None) and not method:
            lacking += [] if "Returns" in told or "Yields" in told else ["Returns"]
        lacks = raised(found) - entries(told.get("Raises", ""))
        lacking += [f"Raises {name}" for name in sorted(lacks)]
        if not method and ">>>" not in doc and "Example" not in told:
            lacking.append("an example")
    return [f"an entry for {name}" for name in sorted(wanted - documented)] + lacking


@pytest.mark.parametrize("name", sorted(NAMES))
def test_is_documented(name):
    assert not missing(*NAMES[name])
