r"""Tables for a paper: LaTeX with the packages ``booktabs`` and ``siunitx``.

Numbers are arguments of ``\num``, with their uncertainties as siunitx reads them, so that a paper's
own ``\sisetup`` decides how they look.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from robaudit.report.table import BEST_NOTE, Cell, Column, Table
from robaudit.report.text import latex

_NUMBER: Final = r"[+-]?\d[\d,]*(?:\.\d+)?"
_FORM = re.compile(rf"({_NUMBER})(?:e(-?\d+))?")
_ONE: Final = rf"{_NUMBER}(?:e-?\d+)?"
_PAIR = re.compile(rf"\[({_ONE}), ({_ONE})\]")
_RANGE = re.compile(r"(\d[\d,]*(?:\.\d+)?)-(\d[\d,]*(?:\.\d+)?)")
_INTERVAL = re.compile(rf"{_PAIR.pattern}|{_RANGE.pattern}")
# Headings with formulas that are set as such, longest first.
_FORMULAS: Final = {
    "sum ||W_k||²": r"$\sum_k \|W_k\|_F^2$",
    "sum Tr(H_k)": r"$\sum_k \mathrm{Tr}(H_k)$",
    "||W_k||_F": r"$\|W_k\|_F$",
    "||W||_F": r"$\|W\|_F$",
    "Tr(H_k)": r"$\mathrm{Tr}(H_k)$",
    "Tr(G_k)": r"$\mathrm{Tr}(G_k)$",
}
# A sign before a number in text is a minus and no hyphen: "-3 +5", not "PGD-10".
_SIGN = re.compile(r"(?<![\w.-])([+-])(?=\d)")
_PAGE: Final = 470.0  # points: the width of a page's text, less a little
# By size of type the points of a character and of the space between columns.
_SIZES: Final = {
    "": (5.0, 12.0),
    r"\small\setlength{\tabcolsep}{4pt}": (4.6, 8.0),
    r"\footnotesize\setlength{\tabcolsep}{4pt}": (4.25, 8.0),
}
_HEADER: Final = r"""% In the preamble: \usepackage{booktabs}, \usepackage{siunitx}
% The line \sisetup of each table: bold numbers, a sign before differences, and uncertainties
% after \pm; leave out separate-uncertainty for the short form 1.23(25).
"""
_SETUP: Final = r"\sisetup{detect-weight, mode = text, retain-explicit-plus, separate-uncertainty}"


def latex_text(*tables: Table) -> str:
    r"""One ``table`` environment for each table with columns; comments name the packages."""
    full = [_without_blanks(table) for table in tables if table.columns]
    floats = [_float(part) for table in full for part in _fitting(table)]
    return "\n".join([_HEADER, *floats]) if floats else ""


def _without_blanks(table: Table) -> Table:
    """The table without columns in which nothing stands."""
    kept = [
        at
        for at, column in enumerate(table.columns)
        if column.names or not table.rows or any(row[at].text for row in table.rows)
    ]
    part = table.only(kept)
    return replace(part, title=table.title, caption=table.caption, notes=table.notes)


def _fitting(table: Table) -> list[Table]:
    """The table itself where a page is wide enough, else parts of it that all name their rows.

    Groups of columns stay together where each fits.
    """
    if _size(table) is not None:
        return [table]
    named = [at for at, one in enumerate(table.columns) if one.names or not one.group]
    groups = dict.fromkeys(column.group for column in table.columns if column.group)
    found = []
    if len(groups) > 1:
        for group in groups:
            own = [at for at, one in enumerate(table.columns) if one.group == group]
            part = replace(table.only([*named, *own]), title=f"{table.title}: {group}")
            found += _packed(part)
    else:
        found = _packed(replace(table, caption="", notes=()))
    found[0] = replace(found[0], caption=table.caption)
    found[-1] = replace(found[-1], notes=table.notes)
    return found


def _packed(table: Table) -> list[Table]:
    """As many columns at a time as fit beside the names of the rows."""
    named = [at for at, one in enumerate(table.columns) if one.names] or [0]
    packs: list[list[int]] = [[]]
    for at in range(len(table.columns)):
        if at in named:
            continue
        if packs[-1] and _size(table.only([*named, *packs[-1], at])) is None:
            packs.append([])
        packs[-1].append(at)
    parts = [table.only([*named, *pack]) for pack in packs]
    return [
        replace(one, title=table.title + (", continued" if place else ""))
        for place, one in enumerate(parts)
    ]


def _size(table: Table) -> str | None:
    """The size of type in which the table fits on a page; ``None`` for none that can be read."""
    characters = 0.0
    for at, column in enumerate(table.columns):
        widths = [float(max(map(len, column.heading.split("\n"))))]
        for row in table.rows:
            cell = row[at]
            small = 0.7 if _INTERVAL.fullmatch(cell.spread) else 1.0
            widths.append(len(cell.text) + small * len(cell.spread) + 1.5 * bool(cell.spread))
        characters += max(widths)
    for size, (wide, gap) in _SIZES.items():
        if characters * wide + len(table.columns) * gap <= _PAGE:
            return size
    return None


def _float(table: Table) -> str:
    kinds = "".join("l" if column.align == "left" else "r" for column in table.columns)
    lines = [r"\begin{table}", _SETUP, r"\centering"]
    if size := _size(table):
        lines.append(size)
    if table.title:
        lines.append(rf"\caption{{{_words(table.title)}}}\smallskip")
    lines += [rf"\begin{{tabular}}{{{kinds}}}", r"\toprule"]
    if table.headed:
        lines += [*_groups(table), _line(map(_heading, table.columns)), r"\midrule"]
    for at, row in enumerate(table.rows):
        if at and at in table.sections:
            lines.append(r"\midrule")
        lines.append(_line(map(_cell, row, table.columns)))
    lines += [r"\bottomrule", r"\end{tabular}"]
    ranked = [f"Bold: {BEST_NOTE}"] if table.ranked else []
    notes = [one for one in (table.caption, *ranked, *table.notes) if one]
    lines += [r"\par\smallskip"] if notes else []
    lines += [rf"\par\footnotesize {_words(note)}" for note in notes]
    return "\n".join([*lines, r"\end{table}", ""])


def _groups(table: Table) -> list[str]:
    """The titles over the groups of columns, each with a rule as wide as its columns."""
    spans: list[tuple[str, int]] = []
    for column in table.columns:
        if spans and spans[-1][0] == column.group:
            spans[-1] = (column.group, spans[-1][1] + 1)
        else:
            spans.append((column.group, 1))
    if len({group for group, _ in spans if group}) < 2:
        return []
    rules, start = [], 1
    for group, width in spans:
        rules += [rf"\cmidrule(lr){{{start}-{start + width - 1}}}"] if group else []
        start += width
    return [
        _line(rf"\multicolumn{{{width}}}{{c}}{{{latex(group)}}}" for group, width in spans),
        " ".join(rules),
    ]


def _heading(column: Column) -> str:
    """Where it has several lines, they stand one below the other."""
    rows = [_words(row) for row in column.heading.split("\n")]
    if len(rows) == 1:
        return rows[0]
    return rf"\shortstack[{column.align[0]}]{{{(chr(92) * 2 + '{}').join(rows)}}}"


def _words(text: str) -> str:
    shown = _SIGN.sub(r"$\1$", latex(text))
    for formula, typeset in _FORMULAS.items():
        shown = shown.replace(latex(formula), typeset)
    return shown


def _line(cells: Iterable[str]) -> str:
    return f"{' & '.join(cells)} " + r"\\"


def _cell(cell: Cell, column: Column) -> str:
    if column.names:  # a model may be called 1e5
        return _words(cell.text)
    if cell.tone == "missing" and cell.text == "-":
        return "--"
    shown = _with_error(cell.text, cell.spread)
    if shown is None:
        value, spread = _typeset(cell.text), _typeset(cell.spread)
        if _INTERVAL.fullmatch(cell.spread):
            value = rf"\textbf{{{value}}}" if cell.best else value
            return rf"{value} {{\scriptsize {spread}}}"
        shown = " ".join(filter(None, (value, spread)))
    return rf"\textbf{{{shown}}}" if cell.best else shown


def _with_error(text: str, spread: str) -> str | None:
    r"""A number and its standard error in one ``\num``; ``None`` where they do not fit one."""
    value, error = _FORM.fullmatch(text), _FORM.fullmatch(spread.removeprefix("±"))
    if value is None or error is None or not spread.startswith("±"):
        return None
    alike = len(value[1].partition(".")[2]) == len(error[1].partition(".")[2])
    if value[2] != error[2] or not alike:
        return rf"{_num(text)} $\pm$ {_num(error[0])}"
    exponent = f" e{value[2]}" if value[2] else ""
    return rf"\num{{{_digits(value[1])} \pm {_digits(error[1])}{exponent}}}"


def _typeset(text: str) -> str:
    r"""A number, an interval or an error bar with its numbers in ``\num``; else text."""
    if _FORM.fullmatch(text):
        return _num(text)
    if pair := _PAIR.fullmatch(text):
        return f"{{[}}{_num(pair[1])}, {_num(pair[2])}{{]}}"
    if ends := _RANGE.fullmatch(text):
        return f"{_num(ends[1])}--{_num(ends[2])}"
    if text.startswith("±") and _FORM.fullmatch(error := text[1:].strip()):
        return rf"$\pm$ {_num(error)}"
    return _words(text)


def _num(text: str) -> str:
    return rf"\num{{{_digits(text)}}}"


def _digits(text: str) -> str:
    # siunitx reads a comma as a decimal point.
    return text.replace(",", "")
