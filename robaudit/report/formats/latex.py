r"""Tables for a paper: LaTeX with the packages ``booktabs`` and ``siunitx``.

Numbers are arguments of ``\num``, with their uncertainties as siunitx reads them, so that a paper's
own ``\sisetup`` decides how they look.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from robaudit.report.table import BEST_NOTE, Cell, Column, Table
from robaudit.report.text import latex

_NUMBER: Final = r"[+-]?\d[\d,]*(?:\.\d+)?"
_FORM = re.compile(rf"({_NUMBER})(?:e(-?\d+))?")
_ONE: Final = rf"{_NUMBER}(?:e-?\d+)?"
_PAIR = re.compile(rf"\[({_ONE}), ({_ONE})\]")
_RANGE = re.compile(r"(\d[\d,]*(?:\.\d+)?)-(\d[\d,]*(?:\.\d+)?)")
# Headings with formulas that are set as such, longest first.
_FORMULAS: Final = {
    "sum ||W_k||²": r"$\sum_k \|W_k\|_F^2$",
    "sum Tr(H_k)": r"$\sum_k \mathrm{Tr}(H_k)$",
    "||W_k||_F": r"$\|W_k\|_F$",
    "Tr(H_k)": r"$\mathrm{Tr}(H_k)$",
    "Tr(G_k)": r"$\mathrm{Tr}(G_k)$",
}
_HEADER: Final = r"""% In the preamble: \usepackage{booktabs}, \usepackage{siunitx}
% The line \sisetup of each table: bold numbers, a sign before differences, and uncertainties
% after \pm; leave out separate-uncertainty for the short form 1.23(25).
"""
_SETUP: Final = r"\sisetup{detect-weight, mode = text, retain-explicit-plus, separate-uncertainty}"


def latex_text(*tables: Table) -> str:
    r"""One ``table`` environment for each table with columns; comments name the packages."""
    floats = [_float(table) for table in tables if table.columns]
    return "\n".join([_HEADER, *floats]) if floats else ""


def _float(table: Table) -> str:
    kinds = "".join("l" if column.align == "left" else "r" for column in table.columns)
    lines = [r"\begin{table}", _SETUP, r"\centering"]
    if table.title:
        lines.append(rf"\caption{{{latex(table.title)}}}")
    lines += [rf"\begin{{tabular}}{{{kinds}}}", r"\toprule"]
    if table.headed:
        headings = (_heading(column.heading.replace("\n", " ")) for column in table.columns)
        lines += [*_groups(table), _line(headings), r"\midrule"]
    for at, row in enumerate(table.rows):
        if at and at in table.sections:
            lines.append(r"\midrule")
        lines.append(_line(map(_cell, row, table.columns)))
    lines += [r"\bottomrule", r"\end{tabular}"]
    notes = [f"Bold: {BEST_NOTE}"] if table.ranked else []
    for note in filter(None, (table.caption, *notes, *table.notes)):
        lines.append(rf"\par\footnotesize {latex(note)}")
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


def _heading(text: str) -> str:
    shown = latex(text)
    for formula, typeset in _FORMULAS.items():
        shown = shown.replace(latex(formula), typeset)
    return shown


def _line(cells: Iterable[str]) -> str:
    return f"{' & '.join(cells)} " + r"\\"


def _cell(cell: Cell, column: Column) -> str:
    if column.names:  # a model may be called 1e5
        return latex(cell.text)
    if cell.tone == "missing" and cell.text == "-":
        return "--"
    shown = _with_error(cell.text, cell.spread)
    if shown is None:
        ends = _RANGE.fullmatch(cell.spread)
        spread = f"{_num(ends[1])}--{_num(ends[2])}" if ends else _typeset(cell.spread)
        shown = " ".join(filter(None, (_typeset(cell.text), spread)))
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
    if text.startswith("±") and _FORM.fullmatch(error := text[1:].strip()):
        return rf"$\pm$ {_num(error)}"
    return latex(text)


def _num(text: str) -> str:
    return rf"\num{{{_digits(text)}}}"


def _digits(text: str) -> str:
    # siunitx reads a comma as a decimal point.
    return text.replace(",", "")
