"""What every page shares: its style and script inline, and nothing else that could run or load."""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from robaudit.report.formats.html import explained, html_table
from robaudit.report.pictures.drawing import short
from robaudit.report.pictures.palette import DARK, LIGHT
from robaudit.report.text import plain

_FOLDER = Path(__file__).parent / "templates"


def page(template: str, **context: Any) -> str:
    """A whole HTML document.

    All text that is not Markup is escaped and stripped of control characters. The
    Content-Security-Policy admits this style and this script by their hashes, images in data URIs,
    and nothing else.

    Args:
        template: a file name in the folder ``templates``.
        context: the variables of the template.
    """
    style, script = _style(), (_FOLDER / "page.js").read_text(encoding="utf-8")
    policy = (
        f"default-src 'none'; img-src data:; style-src '{_digest(style)}'; "
        f"script-src '{_digest(script)}'; base-uri 'none'; form-action 'none'"
    )
    # Style and script are this package's own files.
    own = {"style": Markup(style), "script": Markup(script)}  # noqa: S704
    return _environment().get_template(template).render(policy=policy, **own, **context)


def interval_bar(value: float | None, low: float | None, high: float | None) -> Markup:
    """A fraction with its interval on a scale from 0 to 1, for a cell; ``""`` without a value."""
    if value is None:
        return Markup("")
    at, left, right = (100 * (value if one is None else one) for one in (value, low, high))
    return Markup(
        '<svg class="bar" viewBox="-3 0 106 10" aria-hidden="true">'
        '<path class="scale" d="M0 5h100M0 2v6M100 2v6"/>'
        '<path d="M{:.1f} 5H{:.1f}"/><circle cx="{:.1f}" cy="5" r="1.7"/></svg>'
    ).format(left, right, at)


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_FOLDER),
        autoescape=True,
        finalize=_visible,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= {"grid": html_table, "explained": explained, "brief": brief}
    return environment


def brief(text: str, most: int = 48) -> Markup:
    """The beginning of a long text, which is shown whole where a pointer rests on it."""
    line = plain(text)
    return explained(line, "") if len(line) <= most else explained(short(line, most), line)


def _visible(value: Any) -> Any:
    return value if isinstance(value, Markup) or not isinstance(value, str) else plain(value)


def _style() -> str:
    themes = (
        f":root{{color-scheme:light;{_variables(LIGHT)}}}"
        f"@media (prefers-color-scheme:dark){{:root{{color-scheme:dark;{_variables(DARK)}}}}}"
        f":root[data-theme=light]{{color-scheme:light;{_variables(LIGHT)}}}"
        f":root[data-theme=dark]{{color-scheme:dark;{_variables(DARK)}}}"
        f"@media print{{:root,:root[data-theme]{{color-scheme:light;{_variables(LIGHT)}}}}}\n"
    )
    return themes + (_FOLDER / "page.css").read_text(encoding="utf-8")


def _variables(theme: dict[str, str]) -> str:
    return ";".join(f"--{name}:{colour}" for name, colour in theme.items())
