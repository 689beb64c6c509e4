"""Pictures: plain functions from a report, a curve or a landscape to a matplotlib figure.

A function returns ``None`` where nothing was measured that it could draw.
:func:`~robaudit.report.pictures.drawing.save` writes a figure as SVG and PNG;
:func:`~robaudit.report.pictures.drawing.inline` makes it an ``<svg>`` element of an HTML page.
matplotlib is imported when the first figure is drawn, never before.
"""
