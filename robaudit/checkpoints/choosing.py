"""Lets the data decide what keys and shapes leave open: the network and the normalisation.

A cascade, cheap tests first: accuracy on 64 images excludes most combinations of network and
normalisation, and on 1024 images the wrong networks; PGD-10 on few images and then on more excludes
normalisations, by the loss that training minimised (:mod:`.deciding`). Where the combinations that
are left agree in robust accuracy, the lowest is taken; where they differ, the identification is
open, and the likeliest is taken only if a guess was asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from robaudit.checkpoints.ascent import STEPS, images_for, share
from robaudit.checkpoints.claims import far_claims
from robaudit.checkpoints.classifier import Classifier
from robaudit.checkpoints.combinations import Combination, Proposal, best_of_each, most_likely
from robaudit.checkpoints.deciding import (
    Outcomes,
    agree,
    left,
    lowest,
    networks_left,
    worth_attacking,
)
from robaudit.checkpoints.normalization import NORMALIZATIONS, normalize_name
from robaudit.checkpoints.open_question import MOST_SHOWN, open_question
from robaudit.checkpoints.said import checked_as_said, refuse_guessing
from robaudit.checkpoints.suitability import check_suits, suits
from robaudit.datasets import DATA_SETS
from robaudit.types import Examples, Progress, ThreatModel

IMAGES = 1024
"""The first images of the split decide, however many are audited."""
_SCREEN = 64
_FIRST_ATTACKED = 128
# Of more networks, or of several with several normalisations each, all are attacked only where the
# first images cost little of what is affordable.
_MANY, _LITTLE_OF_MANY, _LITTLE = 12, 1 / 32, 1 / 4
# Contrast and centre of these are so different that a network good with any usual normalisation is
# better than guessing with one of them.
_SPREAD = ("none", "cifar10", "mnist", "imagenet", "half", "bytes")
# The data set whose moments a normalisation holds; the others belong to none.
_DATA_SETS = {
    name: of
    for name in NORMALIZATIONS
    if (of := name.removesuffix("-moments")) in DATA_SETS and of != "imagenet"
}
# Means of a thousand images are within 0.01 of the set's.
_NEAR = 0.03


@dataclass(frozen=True)
class Asked:
    """What combinations are judged by.

    Attributes:
        examples: labelled images, of which the first :data:`IMAGES` decide; ``None`` for none.
        threat: the audit's; ``None`` for the usual one of such images.
        guess: take the likeliest where the identification is open.
        exact: it is open wherever several combinations are left; else only where they differ in
            robust accuracy.
        progress: told of the attack's steps.
    """

    examples: Examples | None
    threat: ThreatModel | None = None
    guess: bool = False
    exact: bool = False
    progress: Progress | None = None


def choose(
    proposals: Sequence[Proposal], asked: Asked, device: torch.device
) -> tuple[Classifier, ...]:
    """Choose one network and one normalisation for all of the proposals.

    Args:
        proposals: of checkpoints with the same keys and shapes, hence the same candidates in the
            same order.

    Raises:
        OpenQuestionError: several candidates are left that differ in robust accuracy.
        CheckpointError: every candidate's accuracy is that of guessing, or the network does not
            take the examples.
    """
    if asked.examples is None:
        first = combinations(proposals, None, device)[0]
        return tuple(_unchecked(proposals[0], model) for model in first.models)
    examples = asked.examples.taken(slice(IMAGES))
    found = combinations(proposals, examples, device)
    running = [one for one in found if suits(one.models[0], examples)]
    if not running:
        check_suits(found[0].models[0], examples)
    if len(found) == 1:
        return checked_as_said(found[0], examples)
    threat = asked.threat or usual_threat(examples)
    return _Choice(proposals[0], running, examples, threat, asked).made()


def usual_threat(examples: Examples) -> ThreatModel:
    """The usual radius for such images, if the audit names none."""
    channels, height = examples.x.shape[1:3]
    if channels == 1:
        return ThreatModel("linf", 0.15 if height <= 8 else 0.3)
    return ThreatModel("linf", (4 if height > 64 else 8) / 255)


def combinations(
    proposals: Sequence[Proposal], examples: Examples | None, device: torch.device
) -> list[Combination]:
    """Every network of the proposals with every normalisation, by network."""
    own = None if examples is None else data_set_of(examples)
    found = []
    for k, (label, _) in enumerate(proposals[0].networks):
        for normalization in proposals[0].normalizations:
            name = normalize_name(normalization)
            models = [
                Classifier(
                    proposal.networks[k][1],
                    normalization,
                    replace(proposal.origin, architecture=label, normalization=name),
                ).to(device)
                for proposal in proposals
            ]
            found.append(Combination(models, k, own not in (None, _DATA_SETS.get(name, own))))
    # Among equals, normalisations of other data sets come last.
    return sorted(found, key=lambda one: (one.network, one.outcomes.foreign))


def data_set_of(examples: Examples) -> str | None:
    """The usual data set that the images are of: by name, else by size and mean colour."""
    if examples.name in _DATA_SETS.values():
        return examples.name
    channels, side = examples.x.shape[1:3]
    means = examples.x.mean(dim=(0, 2, 3)).tolist()
    distances = {
        of: max(abs(a - b) for a, b in zip(NORMALIZATIONS[name].mean, means, strict=True))
        for name, of in _DATA_SETS.items()
        if len(NORMALIZATIONS[name].mean) == channels and side == DATA_SETS[of].image[1]
    }
    nearest = min(distances, key=distances.__getitem__, default=None)
    return nearest if nearest is not None and distances[nearest] < _NEAR else None


def _unchecked(proposal: Proposal, model: Classifier) -> Classifier:
    origin = model.origin
    warnings = list(origin.warnings)
    if len(proposal.networks) > 1:
        others = ", ".join(label for label, _ in proposal.networks[1:4])
        warnings.append(
            f"keys and shapes fit {origin.architecture} and also {others}; the first was "
            "taken, as there was no data to decide: name one with --arch"
        )
        origin = replace(origin, architecture_known="assumed")
    if not origin.normalized_by:
        warnings.append(
            "no normalisation given: images enter the network as they are in [0, 1]; if training "
            "normalised them, pass --normalize, else the accuracy will be far too low"
        )
        origin = replace(origin, normalization_known="assumed")
    model.origin = replace(origin, warnings=tuple(warnings))
    return model


def _kept(
    among: Sequence[Combination], rule: Callable[[Sequence[Outcomes]], list[int]]
) -> list[Combination]:
    return [among[k] for k in rule([one.outcomes for one in among])]


def _models(among: Sequence[Combination]) -> list[Classifier]:
    return [model for one in among for model in one.models]


class _Choice:
    """One choice among combinations, for one or several checkpoints."""

    def __init__(
        self,
        proposal: Proposal,
        combinations: list[Combination],
        examples: Examples,
        threat: ThreatModel,
        asked: Asked,
    ) -> None:
        self.proposal, self.examples, self.threat, self.asked = proposal, examples, threat, asked
        self.all = combinations
        self.files = len(combinations[0].models)
        self.alike = 0  # networks that hardly differ from the one that was kept

    def made(self) -> tuple[Classifier, ...]:
        among = self._by_accuracy()
        if len({one.network for one in among}) > 1:
            among, others = self._one_network(among)
            if others:
                return self._open([*self._of_a_guess(among), *others], "")
        if len(among) > 1:
            among = self._undecided(among)
        found = [one.outcomes for one in among]
        at = lowest(found)
        if len(among) > 1 and (self.asked.exact or not agree(found, at)):
            return self._open(among, "")
        taken, rest = among[at], [*among[:at], *among[at + 1 :]]
        refuse_guessing(taken, self.all, self.examples)
        far = self._far(taken)
        return self._open(among, far) if far else self._settled(taken, rest, assumed=False)

    def _by_accuracy(self) -> list[Combination]:
        """Candidates that clean images do not exclude; with very many networks, one of each."""
        among = self.all
        if len({one.network for one in among}) > 1:
            best = self._networks()
            if len(best) > _MANY and self._share(best) > _LITTLE_OF_MANY:
                return best
            kept = {one.network for one in best}
            among = [one for one in among if one.network in kept]
        among = self._as_accurate(among)
        kept = {one.network for one in _kept(best_of_each(among), networks_left)}
        return [one for one in among if one.network in kept]

    def _as_accurate(self, among: list[Combination]) -> list[Combination]:
        """Candidates not significantly less accurate than the best, first on few images."""
        for n in (_SCREEN, len(self.examples)):
            for one in among:
                one.look(self.examples, n)
            among = _kept(among, worth_attacking)
        return among

    def _networks(self) -> list[Combination]:
        """Networks, each with a few normalisations, that more and more images leave."""
        best = [one for one in self.all if one.normalization in _SPREAD] or self.all
        for n in (_SCREEN, 4 * _SCREEN, len(self.examples)):
            found = {one: one.glance(self.examples, n) for one in best}
            best = best_of_each(best, found)
            best = [best[k] for k in networks_left([found[one] for one in best])]
        for one in best:
            one.look(self.examples, len(self.examples))
        return _kept(best, networks_left)

    def _one_network(self, among: list[Combination]) -> tuple[list[Combination], list[Combination]]:
        """The most usual of networks that hardly differ under attack, such as ReLU and leaky ReLU.

        They are compared with the same normalisation.

        Returns:
            the candidates of the chosen or most accurate network, and if networks differ, one
            candidate of each of the others.
        """
        best = max(among, key=lambda one: one.outcomes.accuracy)
        same = [one for one in among if one.normalization == best.normalization]
        if len(same) < len({one.network for one in among}):
            if self._share(among) <= _LITTLE:
                return among, []
            same = best_of_each(among)
        elif self._share(same) <= 1:
            same = self._undecided(same)
            found = [one.outcomes for one in same]
            if len(same) == 1 or agree(found, 0):
                self.alike = len(same) - 1
                return [one for one in among if one.network == same[0].network], []
        same.sort(key=lambda one: -one.outcomes.accuracy)
        return [one for one in among if one.network == same[0].network], same[1:]

    def _of_a_guess(self, own: list[Combination]) -> list[Combination]:
        """The candidates of one network that are left for a guess; without one, the best."""
        if not self.asked.guess:
            return [max(own, key=lambda one: one.outcomes.accuracy)]
        own = self._as_accurate([one for one in self.all if one.network == own[0].network])
        return self._undecided(own) if len(own) > 1 else own

    def _undecided(self, among: list[Combination]) -> list[Combination]:
        """Candidates that attacks on few and then on more images do not exclude."""
        n = len(self.examples)
        self._attack(among, self._few())
        among = _kept(among, left)
        if 1 < len(among) <= MOST_SHOWN:
            most = images_for(_models(among), self.examples)
            self._attack(among, min(max(_FIRST_ATTACKED, most), n))
            among = _kept(among, left)
        return among

    def _share(self, among: Sequence[Combination]) -> float:
        """Cost of the first attack, as a fraction of the affordable cost."""
        return share(_models(among), self.examples, self._few())

    def _few(self) -> int:
        """Number of images of the first attack, per checkpoint."""
        each = max(_FIRST_ATTACKED // self.files, _SCREEN)
        return min(each, len(self.examples))

    def _attack(self, among: Sequence[Combination], m: int) -> None:
        total = STEPS * len(among) * self.files
        done = 0

        def tick() -> None:
            nonlocal done
            done += 1
            if self.asked.progress is not None:
                self.asked.progress(done, total)

        for one in among:
            one.attack(self.examples, m, self.threat, tick)

    def _far(self, taken: Combination) -> str:
        for k, model in enumerate(taken.models):
            right = taken.outcomes.right[k]
            accuracy = float(right.double().mean())
            origin = model.origin
            if far := far_claims(origin.claims, origin.robust_claims, accuracy, len(right)):
                return far
        return ""

    def _open(self, among: Sequence[Combination], far: str) -> tuple[Classifier, ...]:
        taken = most_likely(among)
        rest = [one for one in among if one is not taken]
        refuse_guessing(taken, self.all, self.examples)
        if self.asked.guess:
            return self._settled(taken, rest, assumed=True)
        shown = [taken, *rest][:MOST_SHOWN]
        self._attack(shown, max(self._few(), *(one.outcomes.robust.shape[1] for one in shown)))
        raise open_question(self.proposal, [taken, *rest], self.threat, len(self.examples), far)

    def _settled(
        self, taken: Combination, rest: Sequence[Combination], *, assumed: bool
    ) -> tuple[Classifier, ...]:
        known: dict[str, Any] = {}
        if len(self.proposal.networks) > 1:
            guessed = assumed and (not rest or any(r.network != taken.network for r in rest))
            known["architecture_known"] = "assumed" if guessed else "determined"
        if not taken.models[0].origin.normalized_by:
            others = any(r.normalization != taken.normalization for r in rest)
            guessed = assumed and (not rest or others)
            known["normalization_known"] = "assumed" if guessed else "determined"
            known["normalized_by"] = self._by(taken, assumed)
        tried = sorted(
            self.all, key=lambda one: (one not in (taken, *rest), -one.outcomes.accuracy)
        )
        known["trials"] = tuple(one.trial() for one in tried if one.outcomes.clean.numel())
        known["harmless"] = "" if assumed else self._harmless(taken, rest)
        for model in taken.models:
            model.origin = replace(model.origin, **known)
        return taken.models

    def _by(self, taken: Combination, assumed: bool) -> str:
        seen = f"{taken.outcomes.accuracy:.1%} of {taken.outcomes.clean.shape[1]} images right"
        attacked = taken.outcomes.robust.shape[1]
        if attacked:
            seen += f", {taken.outcomes.robust_accuracy:.1%} of {attacked} under PGD-{STEPS}"
        return f"a guess among several ({seen})" if assumed else f"the data ({seen})"

    def _harmless(self, taken: Combination, rest: Sequence[Combination]) -> str:
        names = [one.normalization for one in rest if one.normalization != taken.normalization]
        networks = self.alike + len({one.network for one in (taken, *rest)}) - 1
        if not rest and not networks:
            return ""
        also = [f"{networks} other network{'s' if networks > 1 else ''}"] if networks else []
        if names:
            also.append(f"--normalize {' or '.join(dict.fromkeys(names))}")
        return f"{' and '.join(also)} fit as well, and robust accuracy is the same within a point"
