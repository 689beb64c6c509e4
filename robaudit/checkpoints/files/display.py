"""Text from a file, before anybody sees it."""

from __future__ import annotations


def shown(text: object, limit: int = 80) -> str:
    r"""Text from a file, made safe for a terminal: escapes for what is not printable, and an end.

    >>> shown("weight"), shown("a\x1b[31m")
    ('weight', 'a\\x1b[31m')
    """
    whole = str(text)[: limit + 1]
    safe = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in whole)
    return safe if len(whole) <= limit else safe[:limit] + "..."
