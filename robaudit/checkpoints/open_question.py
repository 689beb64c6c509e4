"""The error for checkpoints that the data does not identify."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from robaudit.checkpoints.ascent import STEPS
from robaudit.checkpoints.combinations import Combination, Proposal, most_likely
from robaudit.checkpoints.deciding import FEW
from robaudit.checkpoints.files.display import shown
from robaudit.errors import OpenQuestionError
from robaudit.types import ThreatModel, radius

MOST_SHOWN = 8


def open_question(
    proposal: Proposal, among: Sequence[Combination], threat: ThreatModel, n: int, far: str
) -> OpenQuestionError:
    """The error that lists the candidates that are left and the options that name one.

    Args:
        n: number of images.
        far: a contradiction between the file's record and the measurement, or ``""``.
    """
    first = most_likely(among)
    ranked = [first, *(one for one in among if one is not first)]
    networks = list(dict.fromkeys(one.network for one in ranked))
    what = _what(proposal, networks)
    name = shown(proposal.origin.source, 200)
    if far:
        message = f"{name}: {far}: it is not known which {what} it was trained with"
    else:
        message = f"{name}: {n} images do not tell which {what} it was trained with"
    letters = {network: chr(ord("A") + k) for k, network in enumerate(networks)}
    lines = _table(ranked[:MOST_SHOWN], letters if len(networks) > 1 else {}, threat)
    if len(ranked) > MOST_SHOWN:
        lines.append(f"and {len(ranked) - MOST_SHOWN} more")
    if len(networks) > 1:
        labels = {one.network: one.architecture for one in ranked[:MOST_SHOWN]}
        lines += [
            f"{letters[network]}: --arch {shlex.quote(label)}" for network, label in labels.items()
        ]
    return OpenQuestionError(message, _advice(proposal, ranked, networks, n), lines)


def _what(proposal: Proposal, networks: Sequence[int]) -> str:
    if not proposal.origin.normalized_by:
        return "network and normalisation" if len(networks) > 1 else "normalisation"
    return "network"


def _table(
    ranked: Sequence[Combination], letters: dict[int, str], threat: ThreatModel
) -> list[str]:
    names = [
        f"{letters[one.network]}, {one.normalization}" if letters else one.normalization
        for one in ranked
    ]
    width = max(len("candidate"), *map(len, names))
    attacked = ranked[0].outcomes.robust.shape[1]
    ball = f"{threat.norm} {radius(threat.eps)}"
    head = f"PGD-{STEPS}, {ball}, {attacked} images" if attacked else ""
    lines = [f"{'candidate':{width}}  clean    {head}"]
    for name, one in zip(names, ranked, strict=True):
        robust = f"{one.outcomes.robust_accuracy:.1%}" if attacked else ""
        mute = " (no gradient to attack along)" if one.outcomes.mute else ""
        lines.append(f"{name:{width}}  {one.outcomes.accuracy:<7.1%}  {robust}{mute}")
    return lines


def _advice(
    proposal: Proposal, ranked: Sequence[Combination], networks: Sequence[int], n: int
) -> str:
    names = list(dict.fromkeys(one.normalization for one in ranked[:MOST_SHOWN]))
    if len(networks) > 1:  # perhaps with one normalisation each, the others not looked at
        options = ["--arch"] if proposal.origin.normalized_by else ["--arch", "--normalize"]
    else:
        options = [f"--normalize {'|'.join(names)}"]
    more = f" More than {n} images may tell too." if n < FEW else ""
    return (
        f"Say what it was in training: {' and '.join(options)}; or go on with the likeliest, "
        f"marked as assumed: --guess.{more}"
    )
