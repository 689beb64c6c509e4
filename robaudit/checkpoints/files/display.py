"""Text from a file made safe to show."""

from __future__ import annotations


def shown(text: object, limit: int = 80) -> str:
    r"""Text from a file, safe for a terminal: unprintable characters escaped, long text cut.

    >>> shown("weight"), shown("a\x1b[31m")
    ('weight', 'a\\x1b[31m')
    """
    whole = str(text)[: limit + 1]
    safe = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in whole)
    return safe if len(whole) <= limit else safe[:limit] + "..."
