"""From a file, a zoo's name or a module to a classifier that takes images in [0, 1]."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

from torch import nn

from robaudit.checkpoints.answers import Answers
from robaudit.checkpoints.choosing import Asked, choose
from robaudit.checkpoints.classifier import Classifier, Origin
from robaudit.checkpoints.combinations import Proposal
from robaudit.checkpoints.factory import Factory
from robaudit.checkpoints.from_file import proposal_from_file
from robaudit.checkpoints.normalization import Normalization, parse_normalization
from robaudit.checkpoints.replacing import replace_swish
from robaudit.checkpoints.sources import is_source, open_source
from robaudit.engine.device import resolve_devices, spread
from robaudit.errors import CheckpointError, UsageError, first_line
from robaudit.request import CheckpointSpec
from robaudit.types import Examples, Progress, ThreatModel


def load(
    source: str | Path | nn.Module,
    *,
    arch: str | Factory | None = None,
    normalize: str | None = None,
    device: str = "auto",
    examples: Examples | None = None,
    member: str | None = None,
    weights: str | None = None,
    sha256: str | None = None,
    trust_pickle: bool = False,
    model_dir: Path | None = None,
    download: bool = False,
    threat: ThreatModel | None = None,
    guess: bool = False,
    exact: bool = False,
    answers: Answers | None = None,
    progress: Progress | None = None,
) -> Classifier:
    """Load a checkpoint as a classifier of images in [0, 1], in evaluation mode.

    Architecture and normalisation are taken from the options, else from what the checkpoint states,
    else from its keys and shapes; candidates that are left are tried on ``examples``. ``origin`` of
    the result tells what decided, and whether they are *said*, *determined* by the data, or
    *assumed*, a guess.

    Args:
        source: a checkpoint file; a Hugging Face folder; ``robustbench:cifar10/Linf/NAME``,
            ``timm:NAME`` or ``torchvision:NAME``; or a module, which is copied.
        arch: an architecture's name, perhaps with arguments (``wide_resnet(depth=34)``),
            ``module:factory``, ``file.py:factory``, or a function that returns the network.
        normalize: ``none``, a name, or ``"m,m,m;s,s,s"``.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:i``; or several, ``cuda:0,cuda:1`` or
            ``cuda:all``, which share the passes: the classifier is on the first.
        examples: labelled images, of which the first 1024 decide between candidates and show that
            the network is not guessing; pass the whole split, however few images are audited.
            Without them nothing is checked, and the origin's warnings say so.
        member: which state dict of the file, if it holds several.
        weights: ``ema``, ``swa`` or ``raw``: which copy, if the file holds averaged weights.
        sha256: the hash that the file must have.
        trust_pickle: unpickle a file that is more than weights, which can run any code; requires
            ``sha256``.
        model_dir: folder of the zoo's files; by default each zoo's own.
        download: fetch the zoo's file when it is not there.
        threat: candidates must have the same robust accuracy in it, else the identification is
            open; by default the usual radius for such images.
        guess: take the likeliest candidate if the identification is open.
        exact: it is open, too, if candidates may differ in curvature only.
        answers: shared by several checkpoints, so that those with the same keys and shapes are
            identified together.
        progress: called with the steps done and their total during the identifying attack.

    Returns:
        the classifier, its parameters frozen; ``origin`` tells where it comes from.

    Raises:
        OpenQuestionError: several candidates are left that differ in robust accuracy.
        CheckpointError: the file is unsafe, unreadable, not identified, does not fit, or its
            accuracy on ``examples`` is that of guessing.
        UsageError: an option is invalid.

    Example:
        >>> from robaudit.checkpoints import samples_dir
        >>> load(samples_dir() / "robust.pt", device="cpu").origin.architecture
        'digits_resnet'
    """
    places = resolve_devices(device)
    if normalize is not None:
        parse_normalization(normalize)  # before anything is read
    read = CheckpointSpec().changed(weights=weights)  # of all checkpoints that are pooled
    if isinstance(source, nn.Module):
        proposal = _live(source)
    elif is_source(str(source)):
        for option, given in (("--arch", arch), ("--member", member), ("--weights", weights)):
            if given is not None:
                raise UsageError(f"{option} {given}: the zoo says which network {source} is")
        proposal = _from_zoo(str(source), model_dir, download, sha256)
    else:
        once = read.changed(member=member, sha256=sha256, trust_pickle=trust_pickle)
        proposal = proposal_from_file(Path(source), arch, once, examples)
    proposal = with_normalization(proposal, normalize)
    asked_of = Asked(examples, threat, guess, exact, progress)
    _ready(proposal)
    if not proposal.open or answers is None or examples is None:
        found = choose((proposal,), asked_of, places[0])[0]
    else:
        peers = (_peer(path, arch, normalize, read, examples) for path in answers.pooled)
        found = answers.answer(proposal, peers, asked_of, places[0])
    return spread(found, places)


def _ready(proposal: Proposal) -> None:
    for _, network in proposal.networks:
        replace_swish(network)


def with_normalization(proposal: Proposal, normalize: str | None) -> Proposal:
    """The proposal with the normalisation of ``--normalize``, where that is given."""
    if normalize is None:
        return proposal
    origin = replace(proposal.origin, normalized_by="--normalize", normalization_known="said")
    return replace(proposal, normalizations=(parse_normalization(normalize),), origin=origin)


def _peer(
    source: str,
    arch: str | Factory | None,
    normalize: str | None,
    read: CheckpointSpec,
    examples: Examples,
) -> Proposal | None:
    """The proposal for another checkpoint of the command; ``None`` if it cannot be read."""
    if is_source(source):
        return None
    try:
        proposal = with_normalization(
            proposal_from_file(Path(source), arch, read, examples), normalize
        )
    except (CheckpointError, UsageError):
        return None
    _ready(proposal)
    return proposal


def _from_zoo(source: str, model_dir: Path | None, download: bool, sha256: str | None) -> Proposal:
    opened = open_source(source, model_dir=model_dir, download=download)
    if sha256 is not None and sha256.lower() != opened.sha256:
        raise CheckpointError(
            f"{source} has the SHA-256 {opened.sha256}, not {sha256}",
            "It is not the file you meant.",
        )
    said = opened.published.get("clean_acc")
    origin = Origin(
        source=source,
        sha256=opened.sha256,
        format=opened.format,
        architecture=opened.architecture,
        identified_by="the zoo",
        normalization="none",
        parameters=sum(p.numel() for p in opened.network.parameters()),
        warnings=opened.remarks,
        normalized_by="the zoo" if opened.normalization else "the network itself, as in the zoo",
        claims={"clean_acc": float(said)} if isinstance(said, float) else {},
    )
    network = (opened.architecture, opened.network)
    return Proposal((network,), (opened.normalization,), origin)


def _live(module: nn.Module) -> Proposal:
    """A proposal for a copy of the caller's module, which normalises images itself."""
    warnings = []
    if module.training:
        warnings.append(
            f"the {type(module).__name__} was in training mode; it is measured in evaluation mode"
        )
    if isinstance(module, Classifier):
        origin = replace(module.origin, warnings=(*module.origin.warnings, *warnings))
        return Proposal(
            ((origin.architecture, _copied(module.network)),), (module.normalization,), origin
        )
    origin = Origin(
        source=type(module).__name__,
        sha256=None,
        format="module",
        architecture=type(module).__name__,
        identified_by="given as a module",
        normalization="none",
        parameters=sum(p.numel() for p in module.parameters()),
        warnings=tuple(warnings),
        normalized_by="the module itself",
    )
    nothing: tuple[Normalization | None, ...] = (None,)
    return Proposal(((origin.architecture, _copied(module)),), nothing, origin)


def _copied(module: nn.Module) -> nn.Module:
    try:
        return copy.deepcopy(module).float()
    except (RuntimeError, TypeError) as error:
        raise UsageError(
            f"the {type(module).__name__} cannot be copied: {first_line(error)}",
            "Measure it while it is not in use: the functions of robaudit take any module.",
        ) from error
