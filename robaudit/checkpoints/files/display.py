"""Text from a file made safe to show, and suggestions for misspelt names."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def shown(text: object, limit: int = 80) -> str:
    r"""Text from a file, safe for a terminal: unprintable characters escaped, long text cut.

    >>> shown("weight"), shown("a\x1b[31m")
    ('weight', 'a\\x1b[31m')
    """
    whole = str(text)[: limit + 1]
    safe = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in whole)
    return safe if len(whole) <= limit else safe[:limit] + "..."


def did_you_mean(name: str, known: Iterable[str], n: int = 3, cutoff: float = 0.6) -> str:
    """The end of a message about an unknown name: the ``n`` nearest names, or nothing.

    >>> did_you_mean("resnet5", ["resnet50", "vgg16"])
    "; did you mean 'resnet50'?"
    """
    folded = {entry.lower(): entry for entry in known}
    near = difflib.get_close_matches(name.lower(), folded, n, cutoff)
    return f"; did you mean {' or '.join(repr(folded[one]) for one in near)}?" if near else ""
