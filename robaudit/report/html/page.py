"""The frame of every page: its style and script inline, and nothing else that could run or load."""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from robaudit.report import palette
from robaudit.report.formats.html import html_table
from robaudit.report.text import plain

_FOLDER = Path(__file__).parent / "templates"
LIGHT = {
    "paper": "#ffffff", "panel": "#f5f6f7", "rule": "#d5d9dd", "ink": "#1b1e21", "soft": "#59616a",
    "accent": palette.BLUE, "alarm": "#a84300", "series-a": palette.BLUE,
    "series-b": palette.VERMILION, "series-c": palette.GREEN, "series-d": palette.PURPLE,
    "series-e": "#b87a00",  # its orange, dark enough for a thin line on white
}  # fmt: skip
# On a dark page blue and vermilion are too dark for a line; these are their lighter sisters.
DARK = {
    "paper": "#15181b", "panel": "#1d2125", "rule": "#363d44", "ink": "#e7e9eb", "soft": "#a2abb4",
    "accent": palette.SKY, "alarm": palette.ORANGE, "series-a": palette.SKY,
    "series-b": "#ee7d33", "series-c": "#1fbf93", "series-d": palette.PURPLE,
    "series-e": palette.ORANGE,
}  # fmt: skip


def page(template: str, **context: Any) -> str:
    """A whole HTML document.

    All text is escaped and stripped of control characters on its way out, unless it is Markup; the
    Content-Security-Policy admits this style and this script by their hashes, pictures in data
    URIs, and nothing else.
    """
    style, script = _style(), (_FOLDER / "page.js").read_text(encoding="utf-8")
    policy = (
        f"default-src 'none'; img-src data:; style-src '{_digest(style)}'; "
        f"script-src '{_digest(script)}'; base-uri 'none'; form-action 'none'"
    )
    # The two are this package's own files.
    return _environment().get_template(template).render(
        policy=policy, style=Markup(style), script=Markup(script), **context  # noqa: S704
    )  # fmt: skip


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
    environment.globals["grid"] = html_table
    return environment


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
