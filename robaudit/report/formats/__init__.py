"""A :class:`robaudit.report.table.Table` in every format: terminal, markdown, CSV, HTML, LaTeX.

Each renderer makes foreign text harmless, cell by cell.
"""
