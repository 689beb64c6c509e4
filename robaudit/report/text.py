"""Foreign text made harmless: for a terminal, for markdown, for a spreadsheet, for LaTeX.

File names, layer names and warnings come from checkpoints and data of unknown origin.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from pathlib import PurePath, PureWindowsPath

# Escape sequences are removed whole: without ESC alone, "[31m" would be left as text.
_ESCAPES = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"  # control sequences: colours, cursor
    r"|(?:\x1b[\]P^_X]|[\x9d\x90\x9e\x9f\x98]).*?(?:\x07|\x1b\\|\x9c|$)"  # strings: titles, links
    r"|\x1b[ -/]*[0-~]",
    re.DOTALL,
)
# Categories: control, format (with bidirectional overrides), surrogate, line, paragraph.
_UNSEEN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
_MARKDOWN = re.compile(r"([\\`*|\[\]~#]|(?<![^\W_])_|_(?![^\W_]))")
_LATEX = {
    **{sign: f"\\{sign}" for sign in "#$%&_{}"},
    **{sign: f"{{{sign}}}" for sign in "[]"},  # no argument of the command before it
    "\\": r"\textbackslash{}",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "±": r"$\pm$",
    "²": "$^2$",
    "√": r"$\surd$",
    "‖": r"$\Vert$",
    "…": r"\ldots{}",
}
_FORMULA = tuple("=+-@\uff1d\uff0b\uff0d\uff20")  # some spreadsheets accept the full-width forms
_REGISTRIES = ("robustbench:", "timm:", "torchvision:")


def plain(text: object) -> str:
    r"""One line of visible characters: escape sequences out, control characters to spaces.

    >>> plain("a\x1b[31mred\nb")
    'ared b'
    """
    bare = _ESCAPES.sub("", str(text))
    seen = (" " if unicodedata.category(c) in _UNSEEN else c for c in bare)
    return " ".join("".join(seen).split())


def shortened(text: str, limit: int) -> str:
    """The text; of a longer one than ``limit`` the beginning and its length.

    >>> shortened("layer", 8), shortened("a" * 100_000, 8)
    ('layer', 'aaaaaaaa... (100,000 characters)')
    """
    return text if len(text) <= limit else f"{text[:limit]}... ({len(text):,} characters)"


def markdown(text: object) -> str:
    r""":func:`plain`, with the characters escaped that mean something in markdown or HTML.

    >>> markdown("a|b <script> conv_1")
    'a\\|b &lt;script&gt; conv_1'
    """
    entities = plain(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _MARKDOWN.sub(r"\\\1", entities)


def latex(text: object) -> str:
    r""":func:`plain`, with the characters escaped that mean something in LaTeX.

    >>> latex("50 % of conv_1")
    '50 \\% of conv\\_1'
    """
    return "".join(_LATEX.get(sign, sign) for sign in plain(text))


def csv_cell(text: object) -> str:
    """:func:`plain`, quoted by ``'`` where a spreadsheet would read a formula.

    >>> csv_cell("=cmd()")
    "'=cmd()"
    """
    cell = plain(text)
    return f"'{cell}" if cell.startswith(_FORMULA) else cell


# How far up a folder is looked for that tells two models apart.
_FOLDERS = 3


def model_name(source: str) -> str:
    """A checkpoint's short name: a file's stem, or the model's name in a registry.

    >>> model_name("runs/at/epoch_90.pt"), model_name("timm:resnet50.a1_in1k")
    ('epoch_90', 'resnet50.a1_in1k')
    """
    if source.startswith(_REGISTRIES):
        return plain(source.partition(":")[2].rpartition("/")[2]) or plain(source)
    return plain(_path(source).stem) or plain(source)


def model_names(sources: Sequence[str]) -> list[str]:
    """:func:`model_name` of each, with a folder where two would be the same, else numbered.

    It is the nearest folder that tells them apart.

    >>> model_names(["at/checkpoints/epoch_9.pt", "mart/checkpoints/epoch_9.pt"])
    ['at/epoch_9', 'mart/epoch_9']
    """
    alone = [model_name(source) for source in sources]
    names = alone
    for up in range(_FOLDERS):
        counts = Counter(names)
        folders = [[*_path(source).parents[:-1]][up : up + 1] for source in sources]
        names = [
            f"{plain(folder[0].name)}/{one}" if folder and counts[name] > 1 else name
            for name, one, folder in zip(names, alone, folders, strict=True)
        ]
    counts, seen = Counter(names), Counter[str]()
    for at, name in enumerate(names):
        if counts[name] > 1:
            seen[name] += 1
            names[at] = f"{name} ({seen[name]})"
    return names


def _path(source: str) -> PurePath:
    # A Windows path accepts both separators; a report may be read on another system.
    return PureWindowsPath(source)
