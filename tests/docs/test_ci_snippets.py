"""The action, the component, the hooks and the CI page: held against schemas, and run here."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from jsonschema.validators import validator_for

yaml = pytest.importorskip("yaml")

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "how-to" / "ci.md").read_text("utf-8")
BLOCKS = dict(re.findall(r'^```\w+ title="([^"]+)"\n(.*?)^```$', PAGE, re.M | re.S))
WORKFLOW = yaml.safe_load(BLOCKS[".github/workflows/robustness.yml"])
ACTION = yaml.safe_load((ROOT / "action.yml").read_text("utf-8"))
COMPONENT, GITLAB = yaml.safe_load_all((ROOT / "templates" / "gate.yml").read_text("utf-8"))
HOOKS = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text("utf-8"))
STEPS = ACTION["runs"]["steps"]
SAMPLES = ROOT / "sample_checkpoints"
# What the services put into the environment of the gate's script.
GIVEN = {
    "CHECKPOINT": "model.pt", "POLICY": "robaudit.toml", "BASELINE": "", "ARGUMENTS": "",
    "PACKAGE": "robaudit", "GITHUB_STEP_SUMMARY": "page.md", "GITHUB_OUTPUT": "output",
}  # fmt: skip


def step(name):
    (found,) = [one for one in STEPS if one.get("name") == name]
    return found


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A checkout with a policy, and a ``robaudit`` command that is the one under test."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "robaudit.toml").write_text(BLOCKS["robaudit.toml"])
    command(tmp_path, "robaudit", f'exec {shlex.quote(sys.executable)} -m robaudit "$@"')
    return tmp_path


def command(place, name, body):
    file = place / "bin" / name
    file.parent.mkdir(exist_ok=True)
    file.write_text(f"#!/bin/sh\n{body}\n")
    file.chmod(0o755)


def bash(place, script, *flags, **variables):
    known = {name: value for name, value in os.environ.items() if name[:8] != "ROBAUDIT"}
    known |= {"PATH": f"{place / 'bin'}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        ["bash", "--noprofile", "--norc", *flags, "-c", script],
        capture_output=True, text=True, timeout=300, cwd=place,
        env=known | {"ROBAUDIT_DEVICE": "cpu"} | variables,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("schema", "content", "key"),
    [
        ("github-workflows", WORKFLOW, "jobs"),
        ("github-actions", ACTION, "runs"),
        ("gitlab-ci", COMPONENT, "spec"),
        ("gitlab-ci", GITLAB, "robustness"),
        ("gitlab-ci", yaml.safe_load(BLOCKS[".gitlab-ci.yml"]), "include"),
    ],
)
def test_the_services_schemas_hold(schema, content, key):
    found = find_spec("check_jsonschema")
    if found is None:
        pytest.skip("check-jsonschema, which brings the schemas, is not installed")
    folder = Path(found.origin).parent / "builtin_schemas" / "vendor"
    rules = json.loads((folder / f"{schema}.json").read_text("utf-8"))
    if key == "spec" and key not in rules["properties"]:
        pytest.skip("the schema of this version is older than components")
    # YAML 1.1 reads the key "on" as true, which JSON cannot have.
    plain = {"on" if key is True else key: value for key, value in content.items()}
    validator = validator_for(rules)(rules)
    validator.validate(plain)
    plain[key] = 1
    assert not validator.is_valid(plain)


def test_the_workflow_asks_for_no_more_than_it_uses():
    assert WORKFLOW["permissions"] == {"contents": "read"}
    assert WORKFLOW["jobs"]["gate"]["permissions"] == {
        "contents": "read", "security-events": "write", "pull-requests": "write",
    }  # fmt: skip
    used = [one["uses"] for one in STEPS if "uses" in one]
    (_, ours) = WORKFLOW["jobs"]["gate"]["steps"]
    assert set(ours["with"]) <= set(ACTION["inputs"])
    assert "github/codeql-action/upload-sarif@v3" in used
    assert all(re.fullmatch(r"[\w./-]+@v\d+", name) for name in used)
    # Nothing that a pull request's author writes is put into a script.
    assert not any("${{" in one.get("run", "") for one in STEPS)
    assert not any("$[[" in line for line in GITLAB["robustness"]["script"])


def test_every_script_is_bash():
    scripts = [one["run"] for one in STEPS if "run" in one] + [BLOCKS["gate.sh"]]
    for script in [*scripts, "\n".join(GITLAB["robustness"]["script"])]:
        done = subprocess.run(["bash", "-n", "-c", script], capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")


def test_the_workflows_gate_is_run(place):
    shutil.copy(SAMPLES / "standard.pt", place / "model.pt")
    done = bash(place, step("Gate")["run"], "-eo", "pipefail", **GIVEN)
    assert done.returncode == 1, done.stderr
    assert (place / "output").read_text() == "code=1\n"
    assert (place / "page.md").read_text() == (place / "robaudit.md").read_text()
    assert "## robaudit gate: failed" in (place / "page.md").read_text()
    (result,) = json.loads((place / "robaudit.sarif").read_text())["runs"][0]["results"]
    line = result["locations"][0]["physicalLocation"]["region"]["startLine"]
    assert BLOCKS["robaudit.toml"].splitlines()[line - 1] == "min = 0.50"
    assert 'failures="1" errors="0"' in (place / "robaudit.xml").read_text()


def test_a_pass_without_a_verdict_is_none(place):
    """Whatever ended the process with code 0, an older job's verdict is no verdict of this one."""
    (place / "robaudit.xml").write_text("of the job before")
    command(place, "robaudit", "exit 0")
    done = bash(place, BLOCKS["gate.sh"])
    assert done.returncode == 5
    assert "robust enough" not in done.stdout


@pytest.mark.parametrize("code", [0, 1, 3, 4])
def test_the_gates_code_is_the_steps(place, code):
    """However the shell was started: GitLab and GitHub stop at the first error."""
    command(place, "robaudit", f"echo verdict > robaudit.xml; exit {code}")
    command(place, "pip", "exit 0")
    said = {0: "robust enough", 1: "not robust enough", 3: "not decided", 4: "could not run"}
    done = bash(place, BLOCKS["gate.sh"])
    assert done.returncode == code
    assert said[code] in done.stdout + done.stderr
    scripts = [step("Gate")["run"], "\n".join(GITLAB["robustness"]["script"])]
    for script in scripts:
        done = bash(place, script, "-eo", "pipefail", **GIVEN)
        assert done.returncode == code
    assert not (place / "page.md").exists()  # nothing was written, so nothing is shown
    assert (code in GITLAB["robustness"]["allow_failure"]["exit_codes"]) == (code == 3)


@pytest.mark.parametrize("where", ["action", "component"])
def test_inputs_become_the_gates_arguments(place, where):
    """Names with blanks stay one word."""
    action = where == "action"
    command(place, "robaudit", 'printf "%s\\n" "$@" > words; echo verdict > robaudit.xml')
    command(place, "pip", "exit 0")
    script = step("Gate")["run"] if action else "\n".join(GITLAB["robustness"]["script"])
    own = {"CHECKPOINT": "my model.pt", "BASELINE": "last run", "ARGUMENTS": "--arch net.py:make"}
    done = bash(place, script, "-eo", "pipefail", **(GIVEN | own))
    assert done.returncode == 0, done.stderr
    words = (place / "words").read_text().splitlines()
    assert words[:4] == ["gate", "my model.pt", "--policy", "robaudit.toml"]
    assert words[words.index("--baseline") + 1] == "last run"
    assert ("net.py:make" in words) == action


def test_an_action_that_wrote_no_verdict_has_not_passed(place):
    command(place, "robaudit", "exit 0")
    (place / "robaudit.xml").write_text("of the job before")
    done = bash(place, step("Gate")["run"], "-eo", "pipefail", **GIVEN)
    assert (done.returncode, (place / "output").read_text()) == (5, "code=5\n")


def test_the_pages_inputs_and_hooks_are_those_there_are():
    table = re.findall(r"^\| (`[\w-]+`(?:, `[\w-]+`)*) \|", PAGE, re.M)
    named = {name for cell in table for name in re.findall(r"`([\w-]+)`", cell)}
    assert set(ACTION["inputs"]) <= named
    (included,) = yaml.safe_load(BLOCKS[".gitlab-ci.yml"])["include"]
    assert set(included["inputs"]) <= set(COMPONENT["spec"]["inputs"])
    (repo,) = yaml.safe_load(BLOCKS[".pre-commit-config.yaml"])["repos"]
    assert [hook["id"] for hook in repo["hooks"]] == [hook["id"] for hook in HOOKS]


@pytest.mark.parametrize("earlier", ["", "17"])
def test_one_comment_is_made_and_then_replaced(place, earlier):
    command(place, "gh", f'echo "$*" >> calls; case "$*" in *paginate*) echo "{earlier}" ;; esac')
    variables = {"GITHUB_REPOSITORY": "me/net", "PR": "5"}
    done = bash(place, step("Comment on the pull request")["run"], "-eo", "pipefail", **variables)
    assert done.returncode == 0, done.stderr
    asked, sent = (place / "calls").read_text().splitlines()
    assert "repos/me/net/issues/5/comments" in asked
    assert sent == (
        "api --method PATCH repos/me/net/issues/comments/17 -F body=@robaudit.md"
        if earlier
        else "api --method POST repos/me/net/issues/5/comments -F body=@robaudit.md"
    )


def test_the_comment_is_found_by_the_reports_marker():
    from robaudit.report.gate_markdown import MARKER

    assert f'startswith("{MARKER}")' in step("Comment on the pull request")["run"]
    assert f"`{MARKER}`" in PAGE


def test_the_hooks_take_the_changed_files(place):
    """pre-commit splits ``entry`` as a shell would and adds the files' names."""
    assert [set(one) >= {"id", "name", "language", "entry", "files"} for one in HOOKS] == [True] * 2
    names = ["a.pt", "runs/b.safetensors", "c.txt", "d.pt.toml"]
    assert [name for name in names if re.search(HOOKS[0]["files"], name)] == names[:2]
    (place / "bad.pt").write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    for files, good in ((["robust.pt", "standard.pt"], True), (["robust.pt", "bad.pt"], False)):
        paths = [str(SAMPLES / name) if name != "bad.pt" else name for name in files]
        done = bash(place, shlex.join([*shlex.split(HOOKS[0]["entry"]), *paths]))
        assert (done.returncode == 0) == good, done.stderr
    words = shlex.split(HOOKS[1]["entry"])
    assert words[:2] == ["robaudit", "gate"]
    assert HOOKS[1]["stages"] == ["pre-push"]
