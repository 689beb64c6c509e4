"""Pages that are made from the code, so that they cannot fall behind it. Writes no file.

``reference/cli.md`` comes from the command line's own parser; the field tables of
``reference/report.md`` from the report's models; the tables of ``reference/measurements.md`` from
the registry of measures; those of ``reference/recipes.md`` from the recipe's models;
``notebook.md`` from the notebook; names in ``reference/api.md`` are those by which objects are
called; the home page's table is the README's. The tests hold all of them against the code.
"""

import importlib
import json
import re
from pathlib import Path

CLI_PAGE = "reference/cli.md"
NOTEBOOK = Path(__file__).with_name("notebook.ipynb")
_FIELDS, _DEMO, _RECIPE = "<!-- fields -->", "<!-- demo -->", "<!-- recipe -->"
_README = Path(__file__).parents[1] / "README.md"
_OBJECT = re.compile(r"^::: (robaudit\.[\w.]+)$(\n    options:$)?", re.M)
_MEASURES = re.compile(r"<!-- measures ([\w, ]+) -->")
# Sphinx roles in docstrings: the code after them says enough.
_ROLE = re.compile(r":(?:func|class|mod|data|attr|meth):(?=<code)")
_OPTION = re.compile(r"(?<!\w)(--[a-z][a-z-]*|ROBAUDIT_<OPTION>)")
_CELL = str.maketrans({"|": "\\|", "\n": " "})


def on_files(files, config):
    from mkdocs.structure.files import File

    files.append(File.generated(config, CLI_PAGE, content=cli_page()))
    files.append(File.generated(config, "notebook.md", content=notebook_page()))
    return files


def on_page_markdown(markdown, page, config, files):
    if _FIELDS in markdown:
        markdown = markdown.replace(_FIELDS, field_tables())
    if _RECIPE in markdown:
        markdown = markdown.replace(_RECIPE, recipe_tables())
    if _DEMO in markdown:
        markdown = markdown.replace(_DEMO, demo_table())
    return as_called(with_measures(markdown))


def on_page_content(html, page, config, files):
    return _ROLE.sub("", html)


def demo_table():
    """The table that the README shows of the demo."""
    return re.search(r"^```text\n.*?^```$", _README.read_text("utf-8"), re.M | re.S)[0]


def as_called(markdown):
    """Objects of the API under the names by which they are called: ``ra.load``."""

    def named(found):
        name = called(found[1])
        options = f"\n    options:\n      heading: {name}\n      toc_label: {name}"
        return f"::: {found[1]}{options}"

    return _OBJECT.sub(named, markdown)


def called(path):
    """The shortest name by which an object can be had.

    >>> called("robaudit.checkpoints.loading.load"), called("robaudit.attacks.pgd.pgd")
    ('ra.load', 'ra.attacks.pgd')
    """
    import robaudit

    room, name = path.split(".")[1], path.rpartition(".")[2]
    if name in robaudit._HOME:
        return f"ra.{name}"
    whole = importlib.import_module(f"robaudit.{room}")
    if whole is importlib.import_module(path.rpartition(".")[0]) or not hasattr(whole, name):
        return path
    return f"{'ra' if room in robaudit._ROOMS else 'robaudit'}.{room}.{name}"


def notebook_page():
    """The notebook's text and code, with a link to the file itself."""
    parts = []
    for cell in json.loads(NOTEBOOK.read_text("utf-8"))["cells"]:
        text = "".join(cell["source"])
        parts.append(f"```python\n{text}\n```" if cell["cell_type"] == "code" else text)
    file = f"[{NOTEBOOK.name}]({NOTEBOOK.name}) is this page as a notebook, to open in Jupyter."
    return "\n\n".join([parts[0], file, *parts[1:]]) + "\n"


def cli_page():
    """Every command with its arguments and options, as markdown."""
    from robaudit.cli import command
    from robaudit.cli.app import leaves

    group = command()
    commands = leaves(group)
    lines = [
        "# Command line",
        "",
        _prose(group.help),
        "",
        "Options of `robaudit` itself:",
        "",
        *_options([p for p in group.params if not p.hidden], group),
        "",
        "| command | does |",
        "|---|---|",
    ]
    for name, sub in commands.items():
        first = (sub.help or "").split("\n\n")[0]
        lines.append(f"| [`robaudit {name}`](#{_anchor(name)}) | {_inline(first)} |")
    for name, sub in commands.items():
        lines += ["", f"## `robaudit {name}` {{ #{_anchor(name)} }}", "", _prose(sub.help), ""]
        arguments = [p for p in sub.params if p.param_type_name == "argument"]
        if arguments:
            lines += ["| argument | |", "|---|---|"]
            lines += [f"| `{p.metavar or p.name.upper()}` | {_inline(p.help)} |" for p in arguments]
            lines.append("")
        panels = {}
        for parameter in sub.params:
            if parameter.param_type_name == "option" and not parameter.hidden:
                panel = parameter.rich_help_panel or "Its own options"
                panels.setdefault(panel, []).append(parameter)
        for panel, options in panels.items():
            lines += [f"**{panel}**", "", *_options(options, sub), ""]
    return "\n".join(lines).rstrip() + "\n"


def _anchor(name):
    return f"robaudit-{name.replace(' ', '-')}"


def _options(options, command):
    context = command.make_context(command.name, [], resilient_parsing=True)
    rows = ["| option | value | default | |", "|---|---|---|---|"]
    for option in options:
        names = ", ".join(f"`{name}`" for name in (*option.opts, *option.secondary_opts))
        metavar = _metavar(option, context)
        text, _, said = option.help.partition("[default: ")
        default = _inline(said.rstrip("]")) if said else _default(option)
        rows.append(f"| {names} | {metavar} | {default} | {_inline(text.strip())} |")
    return rows


def _metavar(option, context):
    """What stands behind the option's names in its help: ``--n <int>`` gives ``<int>``."""
    words = option.get_help_record(context)[0].split()
    shown = " ".join(word for word in words if not word.startswith(("-", "/")))
    return f"`{shown.translate(_CELL)}`" if shown else ""


def _default(option):
    value = option.default
    if value is None or (option.is_flag and not option.secondary_opts):
        return ""
    if option.is_flag:
        return f"`{(option.opts if value else option.secondary_opts)[0]}`"
    return f"`{getattr(value, 'value', value)}`"


def _prose(text):
    """Help text as markdown: a paragraph that is all bold is a command line."""
    shown = []
    for paragraph in (text or "").split("\n\n"):
        whole = re.fullmatch(r"\[bold\](.*)\[/bold\]", paragraph)
        shown.append(f"```bash\n{whole[1]}\n```" if whole else _inline(paragraph))
    return "\n\n".join(shown)


def _inline(text):
    """Help text in one line: what is bold, and every option, becomes code."""
    parts = re.split(r"\[bold\](.*?)\[/bold\]", text or "")
    parts[::2] = [_OPTION.sub(r"`\1`", part) for part in parts[::2]]
    parts[1::2] = [f"`{part}`" for part in parts[1::2]]
    return "".join(parts).translate(_CELL)


def field_tables():
    """The fields of ``report.json`` and of a gate's verdict, one table a model."""
    from robaudit import schema

    models = ("Report", "Subject", "Evidence", "Data", "Threat", "Measurement", "Interval")
    models += ("Provenance", "Git", "Verdict", "Suite", "Decision")
    lines = []
    for name in models:
        model = getattr(schema, name)
        about = " ".join((model.__doc__ or "").split()).replace("``", "`")
        lines += [f"### {name}", "", about, "", "| field | type |", "|---|---|"]
        described = model.model_json_schema(mode="serialization")
        for key, field in described["properties"].items():
            lines.append(f"| `{key}` | {_kind(field)} |")
        lines.append("")
    return "\n".join(lines)


def recipe_tables():
    """The keys of a recipe: those above the tables, then table by table."""
    from robaudit.training.recipe_tables import Recipe

    described = Recipe.model_json_schema()
    top = described["properties"]
    tables = {key: described["$defs"][name] for key, f in top.items() if (name := _model(f))}
    parts = [_keys({key: field for key, field in top.items() if key not in tables})]
    for key, table in tables.items():
        about = table["description"].partition(": ")[2]
        parts += [f"## `[{key}]` {{ #{key} }}", f"{about[0].upper()}{about[1:]}"]
        parts.append(_keys(table["properties"]))
    return "\n\n".join(parts)


def _keys(fields):
    lines = ["| key | value | if left out | what |", "|---|---|---|---|"]
    for key, field in fields.items():
        usual = json.dumps(field["default"]) if field.get("default") is not None else ""
        left = f"`{usual}`" if usual else "" if "default" in field else "must be given"
        cells = (f"`{key}`", _value(field), left, field["description"])
        lines.append(f"| {' | '.join(cell.translate(_CELL) for cell in cells)} |")
    return "\n".join(lines)


def _model(field):
    """The name of a table's model; a null beside it means that it may be left out."""
    parts = [part for part in (field, *field.get("anyOf", [])) if "$ref" in part]
    return parts[0]["$ref"].rpartition("/")[2] if parts else None


def _value(field):
    parts = [part for part in field.get("anyOf", [field]) if part.get("type") != "null"]
    bounds = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    said = []
    for part in parts:
        limits = [f"{sign} {part[name]:g}" for name, sign in bounds.items() if name in part]
        said.append(" ".join([_kind(part), ", ".join(limits)]).strip())
    return " or ".join(said)


def _kind(field):
    if "$ref" in field:
        return field["$ref"].rpartition("/")[2]
    if "anyOf" in field:
        return " or ".join(_kind(part) for part in field["anyOf"])
    if "const" in field:
        return f"`{field['const']}`"
    if "enum" in field:
        return ", ".join(f"`{value}`" for value in field["enum"])
    if field.get("type") == "array":
        return f"array of {_kind(field['items'])}"
    inner = field.get("additionalProperties")
    if field.get("type") == "object" and isinstance(inner, dict):
        return f"object of {_kind(inner)}"
    return field.get("type", "any")


def with_measures(markdown):
    """The page with a table of the registered measures for each mark of sections."""
    return _MEASURES.sub(lambda mark: measure_table(mark[1].split(", ")), markdown)


def measure_table(sections):
    """The measures of some sections of a report, one row each."""
    from robaudit import measures

    units = {None: "the norm" if "Accuracy" in sections else "its own", "": "none"}
    lines = ["| name | in words | formula | unit | error bar |", "|---|---|---|---|---|"]
    for row in measures.known():
        if row.section in sections:
            label = row.label.format(attack=row.attack, objective="objective", part="")
            cells = (f"`{row.name}`", label, row.formula, units.get(row.unit, row.unit), row.error)
            lines.append(f"| {' | '.join(cell.translate(_CELL) for cell in cells)} |")
    return "\n".join(lines)
