"""The application: its commands, and the one place where errors become exit codes."""

from __future__ import annotations

import functools
import os
import sys
import traceback
from collections.abc import Callable
from inspect import cleandoc
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

import robaudit
from robaudit.cli import (
    attack,
    audit,
    batch,
    certify,
    compare,
    corruptions,
    doctor,
    gate,
    init,
    inspect,
    landscape,
    measure_commands,
    read,
    train,
)
from robaudit.cli.config_file import spelled
from robaudit.cli.messages import candidates_of, message_of, name_nearest, say
from robaudit.cli.recorded import recorded
from robaudit.cli.streams import failure, guard_streams, signals
from robaudit.errors import RobauditError, error_line

_EXIT_NO_OUTPUT, _EXIT_INTERNAL, _EXIT_INTERRUPTED = 2, 5, 130


class _Guarded(TyperGroup):
    """Runs a command; an error becomes one or two lines on stderr and its exit code."""

    def invoke(self, ctx: Any) -> Any:
        with signals():
            return self._invoke(ctx)

    def _invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as interrupt:
            kept = getattr(interrupt, "kept", None)
            if kept:
                say(f"interrupted; {kept}", "The same command goes on from there.")
            else:
                say("interrupted; nothing was written")
            raise typer.Exit(_EXIT_INTERRUPTED) from None
        except RobauditError as error:
            _show_traceback()
            say(message_of(error), error.advice, candidates_of(error))
            raise typer.Exit(error.exit_code) from None
        except (typer.Exit, typer.Abort):
            raise
        except BaseException as error:  # SystemExit, too: no code of a checkpoint's says how we end
            if hasattr(error, "show"):  # a usage error that typer words and exits with 2 itself
                name_nearest(error)
                raise
            _show_traceback()
            say(
                f"internal error: {error_line(error)}",
                "Run again with --debug for the traceback, and report it.",
            )
            raise typer.Exit(_EXIT_INTERNAL) from None


def _show_traceback() -> None:
    if os.environ.get("ROBAUDIT_DEBUG", "") not in ("", "0"):
        traceback.print_exc()


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"robaudit {robaudit.__version__}")
        raise typer.Exit


app = typer.Typer(
    name="robaudit",
    cls=_Guarded,
    no_args_is_help=True,
    add_completion=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


def _flowing(text: str | None) -> str:
    """Paragraphs on one line each: the terminal breaks lines, not the source."""
    paragraphs = cleandoc(text or "").split("\n\n")
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)


_HELP = """
Audit a trained image classifier for adversarial robustness, with error bars.

Start with [bold]robaudit demo[/bold], then [bold]robaudit audit CKPT --data NAME[/bold], or
[bold]robaudit init CKPT[/bold] for a file of options and a policy.

Exit codes: 0 done, gate passed; 1 gate failed; 2 usage; 3 something could not be measured or
decided; 4 checkpoint or data unsafe, unreadable or not identified; 5 internal error;
130 interrupted.

Every option also reads ROBAUDIT_<OPTION> from the environment.
"""


@app.callback(help=_flowing(_HELP))
def _root(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Show the version."),
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show a traceback when something fails.")
    ] = False,
) -> None:
    if debug:
        os.environ["ROBAUDIT_DEBUG"] = "1"


_COMMANDS: dict[str, Callable[..., None]] = {
    "demo": audit.demo,
    "audit": audit.audit,
    "attack": attack.attack,
    "wci": measure_commands.wci,
    "flatness": measure_commands.flatness,
    "hessian": measure_commands.hessian,
    "certify": certify.certify,
    "corruptions": corruptions.corruptions,
    "landscape": landscape.landscape,
    "gate": gate.gate,
    "init": init.init,
    "inspect": inspect.inspect,
    "doctor": doctor.doctor,
    "compare": compare.compare,
    "report": read.report,
    "train": train.train,
    "schema": read.schema,
}


for _name, _function in _COMMANDS.items():
    app.command(_name, help=_flowing(_function.__doc__))(_function)

_batch = typer.Typer(cls=batch.RunByDefault, no_args_is_help=True)
for _name, _function in batch.COMMANDS.items():
    _batch.command(_name, help=_flowing(_function.__doc__))(_function)
app.add_typer(_batch, name="batch", help=_flowing(batch.HELP))


def command() -> Any:
    """The click command, with an environment variable for every option."""
    group: Any = typer.main.get_command(app)
    for sub in leaves(group).values():
        for parameter in sub.params:
            if parameter.param_type_name == "option" and parameter.name != "help":
                parameter.envvar = f"ROBAUDIT_{spelled(parameter).upper()}"
        sub.invoke = functools.partial(_recording, sub.invoke)
    return group


def _recording(invoke: Callable[[Any], Any], ctx: Any) -> Any:
    with recorded(ctx):
        return invoke(ctx)


def leaves(group: Any) -> dict[str, Any]:
    """Every command by its words, as in ``batch status``."""
    found: dict[str, Any] = {}
    for name, sub in group.commands.items():
        inner = leaves(sub) if hasattr(sub, "commands") else {}
        found |= {f"{name} {word}": leaf for word, leaf in inner.items()} or {name: sub}
    return found


def main() -> NoReturn:
    """The ``robaudit`` program."""
    guard_streams()
    words = sys.argv[1:]
    if "--debug" in words:  # wherever it stands
        words = ["--debug", *(word for word in words if word != "--debug")]
    code = _run(words)
    reason = failure()
    if reason is not None:
        say(f"cannot write to standard output: {reason}")
        code = code or _EXIT_NO_OUTPUT
    sys.exit(code)


def _run(words: list[str]) -> int:
    try:
        command()(args=words, prog_name="robaudit")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0
