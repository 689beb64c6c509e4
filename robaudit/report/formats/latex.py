r"""Tables for a paper: LaTeX with the package ``booktabs``, values with their uncertainties."""

from __future__ import annotations

import re
from collections.abc import Iterable

from robaudit.report.table import BEST_NOTE, Cell, Table
from robaudit.report.text import latex

_NUMBER = re.compile(r"[+-]?\d[\d,]*(?:\.\d+)?")
_RANGE = re.compile(r"(?<=\d)-(?=\d)")  # 38.1-42.6, which takes a dash
_FORM = re.compile(rf"({_NUMBER.pattern})(?:e(-?\d+))?")


def latex_text(*tables: Table) -> str:
    r"""One ``table`` environment for each table with columns; needs ``\usepackage{booktabs}``."""
    return "\n".join(_float(table) for table in tables if table.columns)


def _float(table: Table) -> str:
    kinds = "".join("l" if column.align == "left" else "r" for column in table.columns)
    lines = [r"\begin{table}", r"\centering"]
    if table.title:
        lines.append(rf"\caption{{{latex(table.title)}}}")
    lines += [rf"\begin{{tabular}}{{{kinds}}}", r"\toprule"]
    if table.headed:
        headings = (latex(column.heading.replace("\n", " ")) for column in table.columns)
        lines += [*_groups(table), _line(headings), r"\midrule"]
    for at, row in enumerate(table.rows):
        if at and at in table.sections:
            lines.append(r"\midrule")
        lines.append(_line(map(_cell, row)))
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


def _line(cells: Iterable[str]) -> str:
    return f"{' & '.join(cells)} " + r"\\"


def _cell(cell: Cell) -> str:
    value, spread = _FORM.fullmatch(cell.text), _FORM.fullmatch(cell.spread.removeprefix("±"))
    if value is None:
        shown = " ".join(filter(None, (latex(cell.text), latex(cell.spread))))
        return rf"\textbf{{{shown}}}" if cell.best else shown
    if spread is None:
        shown = _math(*value.groups())
        after = f" {_RANGE.sub('--', latex(cell.spread))}" if cell.spread else ""
    elif value[2] == spread[2] and value[2]:
        shown = rf"$({value[1]} \pm {spread[1]}) \times 10^{{{value[2]}}}$"
        after = ""
    else:
        shown = rf"{_math(*value.groups())[:-1]} \pm {_math(*spread.groups())[1:]}"
        after = ""
    return (rf"{{\boldmath{shown}}}" if cell.best else shown) + after


def _math(digits: str, exponent: str | None) -> str:
    digits = digits.replace(",", "{,}")
    return f"${digits}$" if exponent is None else rf"${digits} \times 10^{{{exponent}}}$"
