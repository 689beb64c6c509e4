"""``robaudit init``: a first ``robaudit.toml``, checked by a first quick audit."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from robaudit.cli.messages import candidates_of, message_of, say, show_tables
from robaudit.cli.options import Checkpoints, Settings, with_settings
from robaudit.errors import (
    CheckpointError,
    DataError,
    NotMeasuredError,
    RobauditError,
    UsageError,
)
from robaudit.request import AUTO, CheckpointSpec, ExamplesSpec, ThreatSpec
from robaudit.types import radius

if TYPE_CHECKING:
    from robaudit.schema import Report

_NOT_HERE = frozenset(
    {"gap", "train_data", "samples", "straight_through", "state", "out", "on_result"}
    | {"format", "json", "config", "precision", "batch_size", "sha256"}
)
_HEAD = """\
# Options of every robaudit command, then the policy of robaudit gate.
#
#   robaudit audit {checkpoints} --config {file} --out audits
#   robaudit gate {first} --policy {file}

[options]
{options}

"""


@with_settings(omit=_NOT_HERE)
def init(
    checkpoints: Checkpoints,
    settings: Settings,
    *,
    file: Annotated[
        Path, typer.Option(metavar="FILE", help="The file to write; it must not exist.")
    ] = Path("robaudit.toml"),
) -> None:
    """Write a first robaudit.toml: options for every command, and a policy for robaudit gate.

    [bold]robaudit init runs/*.pt --arch networks.py:small_cnn --normalize cifar10[/bold]

    The first checkpoint is attacked by PGD and the fast tier on 256 examples, so that the file
    is known to open it, and each threshold is what a checkpoint as good as that one passes. On a
    terminal it asks for what the checkpoint does not tell: its data, network or normalisation.
    """
    from robaudit.gate.initial import initial_policy
    from robaudit.report import screen_tables
    from robaudit.report.folder import writing

    if file.exists():
        raise UsageError(f"{file} is there already", "Name another with --file, or remove it.")
    settings, report = _first_audit(checkpoints[0], settings)
    options = "\n".join(f"{key} = {_toml(value)}" for key, value in _said(settings, report).items())
    head = _HEAD.format(
        checkpoints=_pattern(checkpoints),
        first=shlex.quote(checkpoints[0]),
        file=shlex.quote(str(file)),
        options=options,
    )
    with writing(file):
        file.write_text(head + initial_policy(report), "utf-8")
    show_tables(*screen_tables([report]))
    if not settings.quiet:
        next_ = f"robaudit audit {_pattern(checkpoints)} --config {file} --out audits"
        say(f"wrote {file}", f"{next_}, or robaudit gate {checkpoints[0]} --policy {file}")


def _first_audit(source: str, settings: Settings) -> tuple[Settings, Report]:
    """The report of a first audit, and the settings with the answers to what was asked for it."""
    from robaudit.audit import Plan
    from robaudit.audit.plan import PRESETS
    from robaudit.audit.probes import Fast, Pgd
    from robaudit.cli.measure import run

    pgd = PRESETS["quick"].get(Pgd)
    assert pgd is not None
    plan = Plan(n=256, probes=(pgd, Fast()))
    while True:
        try:
            outcome = run([source], plan, settings)
        except (CheckpointError, DataError) as error:
            settings = settings.changed(**_asked(error, settings))
            continue
        report = outcome.reports[0]
        if outcome.code:
            lost = next(m for m in report.measurements if m.status == "failed")
            raise NotMeasuredError(f"{lost.name} could not be measured: {lost.reason}")
        return settings, report


def _asked(error: RobauditError, settings: Settings) -> dict[str, str]:
    """The user's answer to what an error leaves open.

    Raises:
        RobauditError: the error itself, where nobody is there to ask or no answer would help.
    """
    left: list[str] = []
    if isinstance(error, DataError) and settings.data == AUTO:
        left = ["data"]
    elif isinstance(error, CheckpointError):
        unsaid = [name for name in ("arch", "normalize") if getattr(settings, name) is None]
        left = [name for name in unsaid if f"--{name}" in (error.advice or "")]
    if not (sys.stdin.isatty() and sys.stderr.isatty() and left):
        raise error
    say(message_of(error), error.advice, candidates_of(error))
    answers = {name: _answer(name) for name in left}
    given = {name: answer for name, answer in answers.items() if answer}
    if not given:
        raise error
    return given


def _answer(name: str) -> str:
    found: str = typer.prompt(f"--{name}", default="", show_default=False, err=True)
    return found.strip()


def _said(settings: Settings, report: Report) -> dict[str, Any]:
    """The options that open the same checkpoint on the same data in the same threat model."""
    given = {
        name: value
        for spec in (CheckpointSpec, ExamplesSpec, ThreatSpec)
        for name, value in settings.stated(spec).items()
        if name != "n"
    }
    threat = report.threat
    assert threat is not None
    return {
        **{name: str(value) if isinstance(value, Path) else value for name, value in given.items()},
        "data": report.data.name if settings.data == AUTO else settings.data,
        "norm": threat.norm,
        "eps": radius(threat.eps),
    }


def _toml(value: Any) -> str:
    """A text, number or switch as TOML: JSON's spelling is TOML's."""
    return json.dumps(value, ensure_ascii=False)


def _pattern(checkpoints: list[str]) -> str:
    """The checkpoints in one word where they share folder and suffix."""
    paths = [Path(one) for one in checkpoints]
    if len({(path.parent, path.suffix) for path in paths}) == 1 and len(paths) > 1:
        return f'"{paths[0].parent / "*"}{paths[0].suffix}"'
    return " ".join(shlex.quote(one) for one in checkpoints)
