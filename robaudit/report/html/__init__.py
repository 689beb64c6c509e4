"""Pages for people: one self-contained HTML document each, drawn from numbers alone.

A page loads nothing, runs nothing but its own script, and is rendered without torch.
"""

from robaudit.report.html.index_page import index_html
from robaudit.report.html.report_page import to_html
from robaudit.report.html.verdict_page import verdict_html

__all__ = ["index_html", "to_html", "verdict_html"]
