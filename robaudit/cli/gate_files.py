"""The files of a gate: there from its first second on, saying that it has not finished.

However the process ends, CI then finds an error and neither nothing nor an earlier run's pass.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from robaudit.atomic_write import atomic_write, clear_drafts
from robaudit.errors import UsageError
from robaudit.report.gate_markdown import gate_markdown
from robaudit.report.html import verdict_html
from robaudit.report.junit import to_junit
from robaudit.report.sarif import to_sarif
from robaudit.report.text import model_names
from robaudit.schema import Verdict

Render = Callable[[list[Verdict]], str]


def verdicts_json(verdicts: Sequence[Verdict], several: bool = True) -> str:
    """The verdicts as JSON, an array where there are several."""
    objects = [verdict.model_dump(mode="json") for verdict in verdicts]
    return json.dumps(objects if several else objects[0], indent=2, allow_nan=False) + "\n"


@dataclass
class GateFiles:
    """What a gate was asked to write; ``summary`` is appended to, ``out`` is a folder."""

    junit: Path | None = None
    sarif: Path | None = None
    summary: Path | None = None
    out: Path | None = None
    _appended: bytes = field(default=b"", init=False)

    def begin(self, unfinished: list[Verdict]) -> None:
        """Write all of them, saying that the gate has not finished.

        Raises:
            UsageError: one cannot be written; the others are, as far as they can.
        """
        refused = []
        for path in [path for path, _ in self._parts(unfinished)]:
            with suppress(OSError):  # what is wrong with its folder, the next line says
                path.parent.mkdir(parents=True, exist_ok=True)
            try:
                with path.open("ab"):
                    pass
            except OSError as error:
                refused.append(f"cannot write to {path}: {error.strerror or error}")
        refused += [one for one in self._written(unfinished, draft=True) if one not in refused]
        if refused:
            raise UsageError(refused[0], "Name another file.")

    def end(self, verdicts: list[Verdict]) -> list[str]:
        """Put the verdicts in their place; what could not be written, and why."""
        return self._written(verdicts, draft=False)

    def _parts(self, verdicts: list[Verdict]) -> list[tuple[Path, Render]]:
        asked: list[tuple[Path | None, Render]] = [
            (self.junit, to_junit),
            (self.sarif, to_sarif),
            (self.summary, gate_markdown),
        ]
        parts = [(path, render) for path, render in asked if path is not None]
        if self.out is None:
            return parts
        parts += [(self.out / "verdicts.json", verdicts_json)]
        parts += [(self.out / "verdicts.md", gate_markdown)]
        names = model_names([verdict.subject.source for verdict in verdicts])
        for verdict, name in zip(verdicts, names, strict=True):
            page = self.out / f"{re.sub(r'[^A-Za-z0-9._-]+', '-', name)}.html"
            parts.append((page, partial(_page, verdict)))
        return parts

    def _written(self, verdicts: list[Verdict], draft: bool) -> list[str]:
        refused = []
        for path, render in self._parts(verdicts):
            ordinary = path.is_file() or not path.exists()
            if draft and not ordinary:
                continue  # a pipe or a device takes no second text in the first one's place
            data = render(verdicts).encode("utf-8", "replace")
            try:
                if path == self.summary:
                    self._append(path, data, ordinary)
                elif ordinary:
                    _replace(path, data)
                else:
                    path.write_bytes(data)
            except OSError as error:
                refused.append(f"cannot write to {path}: {error.strerror or error}")
                if ordinary and path != self.summary:
                    with suppress(OSError):
                        path.unlink(missing_ok=True)  # rather nothing than an earlier verdict
        return refused

    def _append(self, path: Path, data: bytes, ordinary: bool) -> None:
        """After what earlier commands wrote, in place of what this one did."""
        if ordinary and self._appended and path.exists():
            before = path.read_bytes()
            if before.endswith(self._appended):
                os.truncate(path, len(before) - len(self._appended))
        with path.open("ab") as file:
            file.write(data)
        self._appended = data


def _page(verdict: Verdict, _: list[Verdict]) -> str:
    return verdict_html(verdict)


def _replace(path: Path, data: bytes) -> None:
    """Whole or not at all, also behind a link; in place where the folder takes no new files."""
    target = path.resolve()
    clear_drafts(target.parent)
    try:
        atomic_write(target, data)
    except PermissionError:
        target.write_bytes(data)
