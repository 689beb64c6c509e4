"""How an architecture is written: ``NAME`` or ``NAME(argument=value, ...)``."""

from __future__ import annotations

import re

_FORM = re.compile(r"\s*([\w.:-]+)\s*(?:\((.*)\)\s*)?", re.DOTALL)
_ARGUMENT = re.compile(r"\s*([A-Za-z_]\w*)\s*=\s*([\w.:+-]+|\"[^\"]*\"|'[^']*')\s*(?:;|,|$)")
_INTEGER = re.compile(r"[+-]?\d{1,9}")


def parse_arch(text: str) -> tuple[str, dict[str, int | str]]:
    """The name and the arguments of an architecture as it is written.

    Raises:
        ValueError: the text is not of this form.

    >>> parse_arch("wide_resnet(depth=34, activation=silu)")
    ('wide_resnet', {'depth': 34, 'activation': 'silu'})
    >>> parse_arch("torchvision:resnet50")
    ('torchvision:resnet50', {})
    """
    form = _FORM.fullmatch(text)
    if form is None:
        raise ValueError(f"{text!r} is not of the form NAME or NAME(argument=value, ...)")
    name, inside = form.group(1), form.group(2) or ""
    arguments: dict[str, int | str] = {}
    place = 0
    while inside[place:].strip():
        found = _ARGUMENT.match(inside, place)
        if found is None:
            raise ValueError(f"{inside[place:].strip()!r} is not of the form argument=value")
        key, value = found.group(1), found.group(2).strip("\"'")
        if key in arguments:
            raise ValueError(f"{key} is given twice")
        arguments[key] = int(value) if _INTEGER.fullmatch(value) else value
        place = found.end()
    return name, arguments
