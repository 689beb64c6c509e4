"""The documentation says what is there: commands, options, names, links, and Python that runs."""

import doctest
import importlib
import importlib.util
import pkgutil
import re
import shlex
import sys
import types
from dataclasses import dataclass
from pathlib import Path

import pytest
from support.corrupted import write_arrays

import robaudit
from robaudit.cli import command
from robaudit.cli.app import leaves
from robaudit.datasets import CORRUPTIONS

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = sorted([*ROOT.glob("*.md"), ROOT / "sample_checkpoints" / "README.md", *DOCS.rglob("*.md")])
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]
GROUP = command()

_FENCE = re.compile(
    r"^(?P<indent> *)```(?P<head>[^\n`]*)\n(?P<body>.*?)^(?P=indent)```$", re.M | re.S
)
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ (.*)$", re.M)


@dataclass(frozen=True)
class Block:
    language: str
    title: str
    body: str


def hooks():
    spec = importlib.util.spec_from_file_location("robaudit_docs_hooks", DOCS / "hooks.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


GENERATED = hooks().cli_page()
MADE = {DOCS / "reference" / "cli.md": GENERATED, DOCS / "notebook.md": hooks().notebook_page()}


def blocks(text):
    for found in _FENCE.finditer(text):
        language, _, rest = found["head"].partition(" ")
        title = re.search(r'title="([^"]+)"', rest)
        yield Block(language, title[1] if title else "", found["body"])


def commands_of(text):
    """Every ``robaudit`` command line of a page: in shell blocks, and in code in its text."""
    for block in blocks(text):
        if block.language in ("bash", "console", "sh"):
            for line in block.body.replace("\\\n", " ").splitlines():
                yield from parts_of(line)
    for code in re.findall(r"`([^`\n]+)`", _FENCE.sub("", text)):
        yield from parts_of(code)


def parts_of(line):
    """The words behind each ``robaudit`` of a shell line, variables before it left out."""
    if not re.search(r"(^|[&;|] *|\s)robaudit(\s|$)", line):
        return
    lexer = shlex.shlex(line.removeprefix("$ "), posix=True, punctuation_chars="&|;>")
    lexer.whitespace_split = True
    words = []
    for token in [*lexer, ";"]:
        if set(token) <= set("&|;>"):
            while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
                words = words[1:]
            if words[:1] == ["robaudit"]:
                yield words[1:]
            words = []
        else:
            words.append(token)


COMMAND_LINES = [
    pytest.param(words, id=f"{name}: {' '.join(words)}")
    for name, text in [
        *((name, page.read_text("utf-8")) for name, page in zip(NAMES, PAGES, strict=True)),
        ("cli.md", GENERATED),
    ]
    for words in commands_of(text)
]


def test_the_pages_are_there():
    assert "README.md" in NAMES
    assert len(NAMES) > 15
    assert len(COMMAND_LINES) > 40


@pytest.mark.parametrize("words", COMMAND_LINES)
def test_command_lines_exist(words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "robaudit.toml").write_text("")  # what --config names on the pages
    check(words)


@pytest.mark.parametrize(
    "line", ["robaudit nothing", "x && robaudit wci a.pt --no-such", "robaudit wci a.pt --format x"]
)
def test_wrong_command_lines_are_noticed(line):
    (words,) = parts_of(line)
    with pytest.raises(Exception) as refused:
        check(words)
    # An assertion of our own, or a usage error of typer's, whose words differ between versions.
    assert isinstance(refused.value, AssertionError) or hasattr(refused.value, "show")


def check(words):
    words = [word for word in words if word != "--debug"]
    # No files are here that a pattern could match.
    words = ["model.pt" if re.search(r"\*\.\w+$", word) else word for word in words]
    if not words or words[0].startswith("-"):
        known = {name for p in GROUP.params for name in p.opts} | {"--help", "-h"}
        assert set(words) <= known
        return
    assert words[0] in GROUP.commands, f"there is no command {words[0]}"
    sub = GROUP.commands[words[0]]
    if hasattr(sub, "commands"):
        rest = words[1:]
        words = rest if rest and rest[0] in sub.commands else ["run", *rest]
        sub = sub.commands[words[0]]
    try:
        sub.make_context(words[0], words[1:])
    except Exception as error:
        # A command may stand in a sentence without its arguments.
        if type(error).__name__ not in ("MissingParameter", "NoArgsIsHelpError"):
            raise
        wanted = [p for p in sub.params if p.required and not set(p.opts) & set(words)]
        given = [[p.opts[0], "x"] if p.opts[0][0] == "-" else ["model.pt"] for p in wanted]
        sub.make_context(words[0], [*words[1:], *(word for one in given for word in one)])


def reference_of(name):
    found = re.search(rf"^## `robaudit {name}`.*?(?=^## |\Z)", GENERATED, re.M | re.S)
    assert found, f"the reference has no section for {name}"
    return found[0]


@pytest.mark.parametrize("name", leaves(GROUP))
def test_every_command_and_option_is_in_the_reference(name):
    section = reference_of(name)
    for parameter in leaves(GROUP)[name].params:
        if parameter.param_type_name == "argument":
            assert f"`{parameter.metavar}`" in section
        elif not parameter.hidden:
            row = [line for line in section.splitlines() if f"`{parameter.opts[0]}`" in line]
            assert row, f"{name}: {parameter.opts[0]} is missing"
            assert parameter.help, f"{name}: {parameter.opts[0]} has no help"
            for option in (*parameter.opts, *parameter.secondary_opts):
                assert f"`{option}`" in row[0]


def test_options_of_the_program_are_in_the_reference():
    head = GENERATED.partition("\n## ")[0]
    assert all(f"`{option}`" in head for p in GROUP.params for option in p.opts)


def test_field_tables_hold_every_field_of_the_report():
    from robaudit import schema

    tables = hooks().field_tables()
    for name, model in vars(schema).items():
        if isinstance(model, type) and issubclass(model, schema._Model) and name[0] != "_":
            section = tables.partition(f"### {name}\n")[2].partition("\n###")[0]
            assert all(f"| `{field}` |" in section for field in model.model_fields), name


def test_recipe_tables_hold_every_key_and_say_what_it_is():
    from pydantic import BaseModel

    from robaudit.training import recipe_tables

    text = hooks().recipe_tables()
    for name, model in vars(recipe_tables).items():
        if not (isinstance(model, type) and issubclass(model, BaseModel)) or name[-5:] == "Spec":
            continue
        if model.__module__ == recipe_tables.__name__:
            for key, field in model.model_fields.items():
                if key.startswith("force"):
                    continue
                assert f"| `{key}` |" in text or f"## `[{key}]`" in text, key
                assert field.description or f"## `[{key}]`" in text, key
    assert "| `mixup` | number > 0 |  | alpha of the beta distribution" in text
    assert "| `epochs` | integer ≥ 1 | must be given |" in text


API = re.findall(r"^::: (robaudit[.\w]+)$", (DOCS / "reference" / "api.md").read_text(), re.M)


@pytest.mark.parametrize("path", API)
def test_objects_of_the_api_are_under_the_names_that_the_page_gives(path):
    def found(name):
        package, _, last = re.sub(r"^ra\.", "robaudit.", name).rpartition(".")
        return getattr(importlib.import_module(package), last)

    module, _, name = path.rpartition(".")
    home = importlib.import_module(module)
    wanted = importlib.import_module(path) if path == "robaudit.errors" else getattr(home, name)
    name = hooks().called(path)
    assert found(name) is wanted


def test_the_home_page_shows_the_demo_of_the_readme():
    shown = hooks().on_page_markdown((DOCS / "index.md").read_text("utf-8"), None, None, None)
    assert "<!--" not in shown
    assert hooks().demo_table() in (ROOT / "README.md").read_text("utf-8")
    assert "overfit" in hooks().demo_table()


@pytest.fixture(scope="module")
def audited(tmp_path_factory):
    """An audit with every probe but AutoAttack, which is slow."""
    import torch
    from torch import nn

    from robaudit.audit import Plan, audit
    from robaudit.audit.probes import (  # fmt: skip
        AdaptiveAverage,
        AdaptiveWorst,
        Alignment,
        Average,
        Calibration,
        Certified,
        Classes,
        Corruptions,
        Cw,
        Distance,
        Fast,
        FisherRao,
        Hessian,
        InputGradient,
        Linearity,
        Margins,
        PathNorm,
        Pgd,
        RelativeFlatness,
        SpectralNorms,
        Square,
        TopLayer,
        Transfer,
        Union,
        Wci,
        Worst,
    )
    from robaudit.audit.reference_errors import ReferenceErrors

    torch.manual_seed(0)
    pgd = Pgd(steps=1)
    errors = tuple((name, (0.5,) * 5) for name in CORRUPTIONS)
    reference = ReferenceErrors("another", errors)
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 4), nn.ReLU(), nn.Linear(4, 10))
    plan = Plan(
        probes=(
            pgd,
            Cw(steps=1),
            Transfer(pgd, "itself"),
            Square(queries=5),
            Fast(),
            Union(),
            Classes(),
            Distance(),
            Certified("crown", radius=True),
            Wci(pgd),
            TopLayer(pgd),
            Hessian(pgd, top=1, probes=2, steps=10, density_steps=5),
            Average(pgd, perturbations=2),
            Worst(pgd, passes=1, restarts=1),
            AdaptiveWorst(pgd, steps=2),
            AdaptiveAverage(pgd, perturbations=2),
            RelativeFlatness(pgd),
            FisherRao(pgd),
            PathNorm(),
            SpectralNorms(),
            Margins(pgd),
            InputGradient(pgd),
            Alignment(pgd),
            Linearity(pgd, steps=2),
            Calibration(pgd),
            Corruptions(severities=(5,), reference=reference),
        )
    )
    folder = write_arrays(tmp_path_factory.mktemp("data") / "digits-c")
    test, train = (
        robaudit.load_examples("digits", split=split, n=8) for split in ("test", "train")
    )
    threat = robaudit.ThreatModel("linf", 0.1)
    return audit(
        network, test, threat, plan, train=train, surrogate=network, data_dir=folder.parent
    )


def test_measurement_names_are_documented(audited):
    written = (DOCS / "reference" / "measurements.md").read_text("utf-8")
    page = hooks().with_measures(written)
    names = {m.name for m in audited.report.measurements} | {"accuracy.autoattack"}
    assert [name for name in sorted(names) if f"`{name}`" not in page] == []
    # and nothing is documented that no audit gives
    rows = re.findall(r"^\| (`[a-z_.`, ]+`) \|", page, re.M)
    documented = {name.strip("` ") for row in rows for name in row.split(",")}
    assert documented <= names | {"flatness.clean_average", "flatness.clean_worst"}
    # every measure has a row, and says what it is
    from robaudit.measures import known

    rows = {row.name: f"| `{row.name}` | " for row in known()}
    assert [name for name, begin in rows.items() if begin not in page] == []
    assert [row.name for row in known() if not (row.formula and row.error)] == []


def test_files_of_a_report_folder_are_documented(audited, tmp_path):
    from robaudit.report import fill_folder

    outcomes = {name: rows.numpy() for name, rows in audited.outcomes.items()}
    fill_folder(tmp_path, audited.report, outcomes)
    page = (DOCS / "how-to" / "read-the-report.md").read_text("utf-8")
    assert [file.name for file in tmp_path.iterdir() if f"`{file.name}`" not in page] == []


PYTHON_PAGES = [
    name
    for name, page in zip(NAMES, PAGES, strict=True)
    if any(block.language == "python" for block in blocks(page.read_text("utf-8")))
]


@pytest.mark.parametrize("name", PYTHON_PAGES)
def test_python_blocks_run(name, tmp_path, monkeypatch, capsys):
    """Those of a page in order and in one namespace; a block with a file's name is that file."""
    monkeypatch.chdir(tmp_path)
    page = types.ModuleType("__page__")
    monkeypatch.setitem(sys.modules, "__page__", page)
    space = vars(page)
    for block in blocks((ROOT / name).read_text("utf-8")):
        if block.title:
            file = tmp_path / block.title
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(block.body, "utf-8")
        if block.language == "python":
            exec(compile(block.body, f"{name}", "exec"), space)


def test_the_network_of_the_how_to_page_can_be_audited(tmp_path, monkeypatch):
    import torch

    text = (DOCS / "how-to" / "own-network.md").read_text("utf-8")
    for block in blocks(text):
        if block.title:
            file = tmp_path / block.title
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(block.body, "utf-8")
    monkeypatch.chdir(tmp_path)
    spec = importlib.util.spec_from_file_location("networks_of_the_page", "networks.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    torch.save(module.small_cnn().state_dict(), "model.pt")
    clf = robaudit.load("model.pt", arch="networks.py:small_cnn", device="cpu")
    assert clf.origin.normalization == "0.5;0.25"  # from model.pt.toml
    assert clf(robaudit.load_examples("digits", n=2).x).shape == (2, 10)


@pytest.mark.parametrize("name", NAMES)
def test_internal_links_resolve(name):
    page = ROOT / name
    for target in _LINK.findall(_FENCE.sub("", page.read_text("utf-8"))):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        if there in MADE:
            text = MADE[there]
        else:
            assert there.exists(), f"{name}: {target}"
            text = there.read_text("utf-8") if there.suffix == ".md" else ""
        if anchor:
            assert anchor in {slug(heading) for heading in _HEADING.findall(text)}, target


def slug(heading):
    named = re.search(r"\{ *#([\w-]+) *\}", heading)
    if named:
        return named[1]
    return re.sub(r"[\s-]+", "-", re.sub(r"[^\w\s-]", "", heading.lower())).strip("-")


MODULES = [
    module.name
    for module in pkgutil.walk_packages(robaudit.__path__, "robaudit.")
    if module.name != "robaudit.__main__"  # importing it runs the program
]


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings_run(name):
    assert doctest.testmod(importlib.import_module(name)).failed == 0
