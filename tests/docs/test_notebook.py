"""The notebook runs from its first cell to its last, and the page of it shows the same code."""

import ast
import importlib.util
import json
from pathlib import Path

import matplotlib

DOCS = Path(__file__).resolve().parents[2] / "docs"
NOTEBOOK = json.loads((DOCS / "notebook.ipynb").read_text("utf-8"))
CELLS = NOTEBOOK["cells"]


def source(cell):
    return "".join(cell["source"])


def run(cell, space):
    """The cell's last expression, as a notebook shows it."""
    tree = ast.parse(source(cell))
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, cell["id"], "exec"), space)
    return (
        None
        if last is None
        else eval(compile(ast.Expression(last.value), cell["id"], "eval"), space)
    )


def test_the_file_is_a_notebook_without_outputs():
    assert (NOTEBOOK["nbformat"], NOTEBOOK["nbformat_minor"]) == (4, 5)
    assert len({cell["id"] for cell in CELLS}) == len(CELLS)
    assert CELLS[0]["cell_type"] == "markdown"
    for cell in CELLS:
        assert isinstance(cell["metadata"], dict)
        if cell["cell_type"] == "code":
            assert (cell["outputs"], cell["execution_count"]) == ([], None)


def test_its_cells_run_in_order(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    shown = {}
    space = {"__name__": "__main__"}
    with matplotlib.rc_context():
        matplotlib.use("Agg")
        for cell in CELLS:
            needs = cell["metadata"].get("tags", [])
            if cell["cell_type"] == "code" and all(map(importlib.util.find_spec, needs)):
                shown[source(cell).splitlines()[-1]] = run(cell, space)
    assert "Robust accuracy, PGD-10" in shown["report"]._repr_html_()
    assert shown["again == report"] is True
    assert shown["figure"].axes[0].get_title() == "What each layer adds to WCI"
    assert (tmp_path / "report" / "report.html").exists()
    said = capsys.readouterr().out
    assert "of 32 withstand" in said
    assert "standard" in said


def test_the_page_shows_all_of_it():
    spec = importlib.util.spec_from_file_location(
        "robaudit_docs_hooks_of_notebook", DOCS / "hooks.py"
    )
    hooks = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hooks)
    page = hooks.notebook_page()
    assert page.startswith("# ")
    assert "(notebook.ipynb)" in page
    for cell in CELLS:
        text = source(cell)
        assert (f"```python\n{text}\n```" if cell["cell_type"] == "code" else text) in page
    assert "notebook.md" in (DOCS.parent / "mkdocs.yml").read_text("utf-8")
