"""Location of the sample checkpoints."""

from __future__ import annotations

from pathlib import Path

from robaudit.errors import CheckpointError

_FOLDER = "sample_checkpoints"


def samples_dir() -> Path:
    """The folder of sample checkpoints: in the installed package, or beside it in a checkout.

    Raises:
        CheckpointError: this installation has none.
    """
    package = Path(__file__).resolve().parents[1]
    for folder in (package / _FOLDER, package.parent / _FOLDER):
        if folder.is_dir():
            return folder
    raise CheckpointError(
        "this installation of robaudit has no sample checkpoints", "Reinstall it from a wheel."
    )
