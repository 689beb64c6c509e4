"""Files in the caches of torch hub and of the Hugging Face hub."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from robaudit.checkpoints.files.display import shown
from robaudit.checkpoints.sources.fetching import fetch
from robaudit.errors import CheckpointError


def local_file(folder: Path | None, names: tuple[str, ...]) -> Path | None:
    """The first of these names that is a file in the folder."""
    if folder is None:
        return None
    return next((folder / name for name in names if (folder / name).is_file()), None)


def hub_file(url: str, *, download: bool, what: str, expected: Path | str) -> Path:
    """The file of an address in torch hub's cache, where torchvision and timm keep theirs.

    Args:
        download: fetch it where it is not there.
        what: whose file it is, for messages.
        expected: where else it could have been.

    Raises:
        CheckpointError: it is not there, or could not be fetched.
    """
    import torch.hub

    target = Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]
    if target.is_file():
        return target
    if not download:
        raise _not_here(what, expected, target)

    def get(path: Path) -> None:
        torch.hub.download_url_to_file(url, str(path), progress=sys.stderr.isatty())

    fetch(target, what, get, f"{url} as {target}")
    return target


def hugging_face_file(
    repository: str,
    revision: str | None,
    names: tuple[str, ...],
    *,
    download: bool,
    what: str,
    expected: Path | str,
) -> Path:
    """The first of these files of a repository, from the Hugging Face cache.

    Raises:
        CheckpointError: none is there, or none could be fetched.
    """
    import huggingface_hub

    for name in names:
        found: Any = huggingface_hub.try_to_load_from_cache(repository, name, revision=revision)
        if isinstance(found, str) and Path(found).is_file():
            return Path(found)
    if not download:
        raise _not_here(what, expected, f"the Hugging Face cache ({repository})")
    problem: Exception | None = None
    for name in names:
        try:
            return Path(huggingface_hub.hf_hub_download(repository, name, revision=revision))
        except Exception as error:  # whatever a downloader trips over
            problem = problem or error
    line = " ".join(str(problem).split())
    raise CheckpointError(
        f"{what} could not be fetched: {shown(line, 300)}",
        "Try again later, or put the file into --model-dir yourself.",
    ) from problem


def _not_here(what: str, expected: Path | str, cache: Path | str) -> CheckpointError:
    return CheckpointError(
        f"{what}: its file is not there: neither {shown(expected, 300)} nor {shown(cache, 300)}",
        "Name the folder that has it as --model-dir, or fetch it with --download.",
    )
