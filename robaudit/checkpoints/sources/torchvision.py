"""``torchvision:NAME[:SET]``: torchvision builds it, its file is read safely."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from robaudit.checkpoints.files.display import shown
from robaudit.checkpoints.files.reading import read_state_dict
from robaudit.checkpoints.normalization import spelled
from robaudit.checkpoints.sources import Opened
from robaudit.checkpoints.sources.fetching import check_hash, hub_file, local_file, misfit
from robaudit.errors import UsageError, did_you_mean

_SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")


def open_network(text: str, model_dir: Path | None, download: bool) -> Opened:
    """See :func:`robaudit.checkpoints.sources.open_source`."""
    name, chosen = _weights(text)
    (path,) = files(text, model_dir, download=download)
    read = read_state_dict(path, hash=True)
    check_hash(path, read.sha256)
    network = _built(name, chosen, read.state_dict, shown(path, 200))
    prepare = chosen.transforms()
    return Opened(
        network=network.eval(),
        architecture=f"torchvision:{name}",
        normalization=spelled(tuple(prepare.mean), tuple(prepare.std)),
        format=read.format,
        sha256=read.sha256,
        remarks=(*read.remarks, _preparation(prepare)),
        published=_published(chosen.meta),
    )


def files(text: str, model_dir: Path | None, *, download: bool = False) -> tuple[Path, ...]:
    """The file of ``NAME[:SET]``: in ``model_dir`` by its own name or by ``NAME``, or cached.

    Raises:
        UsageError: no such network or set of weights.
        CheckpointError: the file is not there, or could not be fetched.
    """
    name, chosen = _weights(text)
    own = str(chosen.url).rpartition("/")[2]
    # A file called by the network alone is no more than its usual weights.
    plain = tuple(name + suffix for suffix in _SUFFIXES) if chosen.name == _usual(name) else ()
    found = local_file(model_dir, (own, *plain))
    if found is not None:
        return (found,)
    expected = own if model_dir is None else model_dir / own
    what = f"torchvision:{text}"
    return (hub_file(chosen.url, download=download, what=what, expected=expected),)


def _usual(name: str) -> str:
    from torchvision import models

    usual: str = models.get_model_weights(name).DEFAULT.name
    return usual


def _weights(text: str) -> tuple[str, Any]:
    """The network's name and the chosen member of its enumeration of weights."""
    from torchvision import models

    name, _, asked = text.partition(":")
    known = models.list_models(module=models)
    if name not in known:
        raise UsageError(
            f"torchvision has no classification network {name!r}{did_you_mean(name, known, 3)}",
            "torchvision.models.list_models() names them.",
        )
    sets = models.get_model_weights(name)
    listed = list(sets.__members__)
    if not listed:
        raise UsageError(
            f"torchvision has no weights for {name}",
            f"Load your own with --arch torchvision:{name}.",
        )
    if asked and asked.upper() not in listed:
        raise UsageError(
            f"torchvision has no weights {asked!r} for {name}", f"Known are {', '.join(listed)}."
        )
    return name, sets[asked.upper()] if asked else sets.DEFAULT


def _built(name: str, chosen: Any, state: Mapping[str, torch.Tensor], source: str) -> nn.Module:
    """Builds with torchvision's own code, from tensors in place of a download.

    It applies settings of the weights (Inception's input transform), renames old keys and loads
    strictly.
    """
    from torchvision import models

    # While the network is built, this member of an enumeration of weights gives the file's tensors.
    chosen.get_state_dict = lambda *_, **__: dict(state)
    try:
        with torch.random.fork_rng(devices=[]):
            network: nn.Module = models.get_model(name, weights=chosen)
    except (RuntimeError, ValueError, KeyError) as error:
        raise misfit(source, f"torchvision's {name}", error) from error
    finally:
        del chosen.get_state_dict
    return network


def _preparation(prepare: Any) -> str:
    return (
        f"torchvision evaluates it on images resized to {prepare.resize_size[0]} "
        f"({prepare.interpolation.value}) and cropped at the centre to {prepare.crop_size[0]} "
        "pixels: prepare your images the same way"
    )


def _published(meta: Mapping[str, Any]) -> dict[str, float | bool | str]:
    figures = meta.get("_metrics", {}).get("ImageNet-1K", {})
    return {"clean_acc": figures["acc@1"] / 100} if "acc@1" in figures else {}
