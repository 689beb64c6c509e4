"""Files of published networks: found in folders and caches, or downloaded and checked."""

from __future__ import annotations

import contextlib
import re
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from robaudit.checkpoints.files.container import read_container
from robaudit.checkpoints.files.display import shown
from robaudit.errors import CheckpointError

# torchvision's file names end in the first eight digits of the file's SHA-256.
_HASHED = re.compile(r"-([0-9a-f]{8})\.pth$")


def fetch(target: Path, what: str, get: Callable[[Path], object], by_hand: str) -> None:
    """Download to ``target``, which appears only when the file is complete and a checkpoint.

    Args:
        target: path of the file; its folder is created.
        what: name of the file's network, for messages.
        get: downloads to the path it is given, in a temporary folder beside ``target``.
        by_hand: where the user can find the file.

    Raises:
        CheckpointError: it could not be fetched, or is no checkpoint; nothing is left behind.
    """
    advice = f"Try again later, or put the file there yourself: {by_hand}."
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".download-") as folder:
            got = Path(folder) / target.name
            try:
                with contextlib.redirect_stdout(sys.stderr):  # stdout belongs to the result
                    get(got)
            except Exception as error:  # whatever a downloader trips over
                lines = " ".join(str(error).split()) or type(error).__name__
                raise CheckpointError(
                    f"{what} could not be fetched: {shown(lines, 300)}", advice
                ) from error
            if not got.is_file():
                raise CheckpointError(f"{what} could not be fetched: no file came", advice)
            try:
                read_container(got, hash=False)
            except CheckpointError as error:
                found = error.message.replace(shown(got, 200), f"what came for {target.name}")
                raise CheckpointError(f"{what} could not be fetched: {found}", advice) from None
            got.replace(target)
    except OSError as error:
        raise CheckpointError(
            f"{what} cannot be put into {shown(target.parent, 200)}: {error.strerror or error}",
            "Choose another folder with --model-dir.",
        ) from error


def check_hash(path: Path, sha256: str | None) -> None:
    """Compare a file's SHA-256 with the digits in its name, where it has them.

    Raises:
        CheckpointError: it is another file than its name says.
    """
    named = _HASHED.search(path.name)
    if named is not None and sha256 is not None and not sha256.startswith(named[1]):
        raise CheckpointError(
            f"{shown(path, 200)} has the SHA-256 {sha256[:8]}..., not the {named[1]} in its name",
            "It is damaged, or another file: delete it and fetch it again with --download.",
        )


def local_file(folder: Path | None, names: tuple[str, ...]) -> Path | None:
    """The first of these names that is a file in the folder."""
    if folder is None:
        return None
    return next((folder / name for name in names if (folder / name).is_file()), None)


def hub_file(url: str, *, download: bool, what: str, expected: Path | str) -> Path:
    """The file of an address in torch hub's cache, where torchvision and timm keep theirs.

    Args:
        download: fetch it where it is not there.
        what: name of the file's network, for messages.
        expected: the other place where it was looked for.

    Raises:
        CheckpointError: it is not there, or could not be fetched.
    """
    import torch.hub

    target = Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]
    if target.is_file():
        return target
    if not download:
        raise missing(what, expected, target)

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
        raise missing(what, expected, f"the Hugging Face cache ({repository})")
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


def missing(what: str, expected: Path | str, cache: Path | str | None = None) -> CheckpointError:
    """The error for a file that is at none of the expected places."""
    places = shown(expected, 300)
    if cache is not None:
        places = f"neither {places} nor {shown(cache, 300)}"
    return CheckpointError(
        f"{what}: its file is not there: {places}",
        "Name the folder that has it as --model-dir, or fetch it with --download.",
    )


def another(message: str, again: str = " with --download") -> CheckpointError:
    """The error for a file that holds the weights of another network."""
    return CheckpointError(
        message, f"The file is not this network's: remove it and fetch it again{again}."
    )


def misfit(source: str, network: str, error: Exception) -> CheckpointError:
    """The error for weights that a library refuses to load into its network."""
    lines = " ".join(str(error).split())
    return another(f"{source} does not fit {network}: {shown(lines, 200)}")
