"""``robustbench:DATASET/THREAT/NAME``: RobustBench's zoo builds it, its file is read safely.

F. Croce et al., "RobustBench: a standardized adversarial robustness benchmark", NeurIPS 2021
Datasets and Benchmarks.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from robaudit.checkpoints.files.display import shown
from robaudit.checkpoints.files.hashing import joint_digest
from robaudit.checkpoints.files.reading import LoadedWeights, read_state_dict
from robaudit.checkpoints.sources import Opened
from robaudit.checkpoints.sources.arranging import fit_published
from robaudit.checkpoints.sources.catalogue import CLASSES, Entry, find_entry
from robaudit.checkpoints.sources.fetching import another, check_hash
from robaudit.checkpoints.sources.published import published
from robaudit.checkpoints.sources.zoo import zoo_fields, zoo_importable, zoo_module
from robaudit.checkpoints.sources.zoo_files import is_torchvision, zoo_files
from robaudit.errors import CheckpointError, UsageError, error_line

# Its normalisation in the zoo is a placeholder, which the file's replaces.
_NORMALISED_BY_FILE = ("Modas2021PRIMEResNet18",)


@dataclass(frozen=True)
class FilePart:
    """A network within an ensemble, and where in its file its weights are."""

    network: nn.Module
    member: str | None = None


def open_network(name: str, model_dir: Path | None, download: bool) -> Opened:
    """See :func:`robaudit.checkpoints.sources.open_source`."""
    entry = find_entry(name)
    files = zoo_files(entry, model_dir, download=download)
    network = build(entry)
    remarks: list[str] = []
    formats, hashes = [], []
    for path, parts in zip(files, parts_of(network, len(files)), strict=True):
        for part in parts:
            read = _read(path, part.member)
            check_hash(path, read.sha256)
            arranged, said = fit_published(part.network, read.state_dict, shown(path, 200))
            if arranged.kept and entry.name in _NORMALISED_BY_FILE:
                raise CheckpointError(
                    f"{shown(path, 200)} lacks the normalisation ({', '.join(arranged.kept)}) "
                    f"that {entry.text} takes from its file",
                    "Fetch the file again with --download.",
                )
            # The entry tells which state dict it is; --member and --weights are for files.
            remarks += [*(remark.partition("; --member")[0] for remark in read.remarks), *said]
        formats.append(read.format)
        hashes.append((str(read.sha256), path.name))
    if entry.preprocessing:
        remarks.append(_preparation(entry.preprocessing))
    facts = published(entry)
    return Opened(
        network=network.eval(),
        architecture=str(facts.get("architecture", entry.name)),
        normalization=None,
        format=formats[0],
        sha256=joint_digest(hashes),
        remarks=tuple(dict.fromkeys(remarks)),
        published=facts,
    )


def _read(path: Path, member: str | None) -> LoadedWeights:
    try:
        return read_state_dict(path, hash=True, member=member)
    except UsageError as error:
        # The user chose a name, not what is in its file.
        raise another(error.message, "") from error


def build(entry: Entry) -> nn.Module:
    """The entry's network, without its weights. The random state is left as it was.

    Raises:
        UsageError: RobustBench, or a package it needs, is not installed.
        CheckpointError: the installed packages cannot build it.
    """
    with zoo_importable(), torch.random.fork_rng(devices=[]), _OnTheCpu():
        fields = zoo_fields(entry)
        try:
            network = _built(entry, fields)
        except Exception as error:  # the zoo's code, with whatever versions are installed
            raise CheckpointError(
                f"{entry.text} cannot be built: {shown(error_line(error), 200)}",
                "RobustBench 1.1.1 with timm 1.0.9 builds it: pip install 'robaudit[robustbench]'.",
            ) from error
    return network.eval()


class _OnTheCpu(TorchFunctionMode):
    """Lets networks that call ``cuda()`` while they are built be built without a GPU."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Collection[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if func is torch.Tensor.cuda:
            return args[0]
        return func(*args, **(kwargs or {}))


def _built(entry: Entry, fields: dict[str, Any]) -> nn.Module:
    network: nn.Module
    if is_torchvision(entry):
        # The zoo's own would download the weights while it is built.
        import torchvision

        imagenet = zoo_module("imagenet")
        bare = torchvision.models.resnet50(weights=None)
        network = imagenet.normalize_model(bare, imagenet.mu, imagenet.sigma)
    elif not entry.drive_ids:
        import timm

        network = timm.create_model(
            entry.timm_name, num_classes=CLASSES[entry.dataset], pretrained=False
        )
    else:
        network = fields["model"]()
    return network


def parts_of(network: Any, files: int) -> Sequence[Sequence[FilePart]]:
    """The parts of the network whose weights each of the entry's files holds."""
    if files == 1:
        return ((FilePart(network),),)
    if hasattr(network, "comp_model"):  # adaptive smoothing: two networks and a mixing network
        mixed = network.comp_model
        mixing = (FilePart(mixed.policy_net, "model"), FilePart(mixed.bn, "bn"))
        return (*((FilePart(base),) for base in mixed.models), mixing)
    if hasattr(network, "std_model"):  # MixedNUTS
        return ((FilePart(network.std_model),), (FilePart(network.rob_model),))
    return tuple((FilePart(member),) for member in network.models)


def _preparation(text: str) -> str:
    return (
        f"RobustBench evaluates it on images prepared by {text} (Res: resized to, Crop: cropped "
        "at the centre to that many pixels): prepare your images the same way"
    )
