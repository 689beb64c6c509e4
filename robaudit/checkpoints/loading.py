"""From whatever names a checkpoint to a classifier that takes images in [0, 1]."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

from torch import nn

from robaudit.checkpoints.answers import Answers
from robaudit.checkpoints.choosing import Asked, choose
from robaudit.checkpoints.classifier import Classifier, Origin
from robaudit.checkpoints.factory import Factory
from robaudit.checkpoints.from_file import ReadOptions, proposal_from_file
from robaudit.checkpoints.hypothesis import Proposal
from robaudit.checkpoints.normalization import Normalization, parse_normalization
from robaudit.checkpoints.replacing import replace_swish
from robaudit.checkpoints.sources import is_source, open_source
from robaudit.engine.device import resolve_device
from robaudit.errors import CheckpointError, UsageError
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

    Which network it is, and how its images are normalised, is taken from the options, else from
    what the checkpoint says of itself, else from its keys and shapes; what is then still open is
    tried on ``examples``. ``origin`` of the result says who decided, and whether that was *said*,
    *determined* by the evidence, or, after a guess, *assumed*.

    Args:
        source: a checkpoint file; a Hugging Face folder; ``robustbench:cifar10/Linf/NAME``,
            ``timm:NAME`` or ``torchvision:NAME``; or a live module, which is copied, so that your
            training goes on undisturbed.
        arch: an architecture's name, perhaps with arguments (``wide_resnet(depth=34)``),
            ``module:factory``, ``file.py:factory``, or a function that returns the network.
        normalize: ``none``, a name, or ``"m,m,m;s,s,s"``.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:i``.
        examples: labelled images, of which the first 1024 decide what is open and show that the
            network is not guessing; give all there are, however many are audited. Without them
            nothing is checked, and the origin's warnings say so.
        member: where in the file the state dict is, for files that hold several.
        weights: ``ema``, ``swa`` or ``raw``: which copy, for files that hold averaged weights.
        sha256: the file's hash; another file is refused.
        trust_pickle: load a pickle that is more than weights, which can run any code. Only with
            ``sha256``.
        model_dir: where the zoo's files are; by default each zoo's own place.
        download: fetch the zoo's file when it is not there.
        threat: the audit's; what is left open must not matter to robust accuracy within it. By
            default the usual radius for such images.
        guess: take the likeliest candidate where the question remains open.
        exact: candidates that differ in curvature alone are an open question too.
        answers: shared by the checkpoints of one command, so that those with the same keys and
            shapes are one question with one answer.
        progress: told of the steps of the attack that tells candidates apart.

    Raises:
        OpenQuestionError: the images do not tell what it is.
        CheckpointError: the file is unsafe, unreadable, not identified, does not fit, or its
            accuracy on ``examples`` is that of guessing.
        UsageError: an option cannot be meant.
    """
    place = resolve_device(device)
    if normalize is not None:
        parse_normalization(normalize)  # before anything is read
    if isinstance(source, nn.Module):
        proposal = _live(source)
    elif is_source(str(source)):
        for option, given in (("--arch", arch), ("--member", member), ("--weights", weights)):
            if given is not None:
                raise UsageError(f"{option} {given}: the zoo says which network {source} is")
        proposal = _from_zoo(str(source), model_dir, download, sha256)
    else:
        reading = ReadOptions(member, weights, sha256, trust_pickle)
        proposal = proposal_from_file(Path(source), arch, reading, examples)
    proposal = with_normalization(proposal, normalize)
    asked_of = Asked(examples, threat, guess, exact, progress)
    _ready(proposal)
    if not proposal.open or answers is None or examples is None:
        return choose((proposal,), asked_of, place)[0]
    how = ReadOptions(weights=weights)
    peers = (_peer(path, arch, normalize, how, examples) for path in answers.pooled)
    return answers.answer(proposal, peers, asked_of, place)


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
    how: ReadOptions,
    examples: Examples,
) -> Proposal | None:
    """What another checkpoint of the command may be; ``None`` where it cannot be read."""
    if is_source(source):
        return None
    try:
        proposal = with_normalization(
            proposal_from_file(Path(source), arch, how, examples), normalize
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
            "It is another file than the one that was meant.",
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
    """A module of the caller's; it is taken as it is, normalisation inside."""
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
            f"the {type(module).__name__} cannot be copied: {str(error).splitlines()[0][:160]}",
            "Measure it while it is not in use: the functions of robaudit take any module.",
        ) from error
