"""Branch and bound over the signs of open ReLUs (beta-CROWN's splits)."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from robaudit.certified.search import Choices, Search, joined

# Branches bounded together, ascent steps for each, and candidates for a split in all layers.
_TOGETHER, _STEPS, _ALL_CANDIDATES = 64, 5, 9


@dataclass(frozen=True)
class Frontier:
    """The open branches of one image.

    A branch is a set of assumed signs; all branches of a form cover all inputs. The image is
    certified once no branch is open.

    Attributes:
        form: ``(m,)``, which form each branch bounds.
        lower: ``(m,)`` float64, sound lower bounds.
        choices: the signs, and where the search for slopes and multipliers goes on; shares of hulls
            begin as those of the form.
        splits: branches that were split so far.
        seconds: spent so far.
        closed: the smallest bound of the branches that are not open any more.
        stuck: a branch has no open sign left and is not certified: no further split helps.
    """

    form: Tensor
    lower: Tensor
    choices: Choices
    splits: int = 0
    seconds: float = 0.0
    closed: float = math.inf
    stuck: bool = False

    def rows(self, rows: Tensor) -> Frontier:
        return replace(
            self, form=self.form[rows], lower=self.lower[rows], choices=self.choices.rows(rows)
        )


@dataclass(frozen=True)
class Branching:
    """Branch and bound for some forms of a node's values on one image.

    Attributes:
        forms: ``(f, *shape)`` float64; each has to be shown positive.
        lower: ``(f,)``, their bounds so far.
        exact: the search in float64, with which bounds are evaluated soundly.
        fast: the same search in float32.
        begin: slopes for each form, where the search of every branch begins.
        enough: the estimate from which on a bound is expected to be sound and positive.
    """

    forms: Tensor
    lower: Tensor
    exact: Search
    fast: Search
    begin: Choices
    enough: float

    def opened(self) -> Frontier:
        """One open branch for each form, without assumed signs."""
        whole = torch.arange(len(self.forms), device=self.forms.device)
        signs = {
            k: torch.zeros_like(self.begin.slopes[relu][0], dtype=torch.int8)
            for k, relu in self.fast.relus.items()
        }
        return self.again(Frontier(whole, self.lower, Choices({}, signs, {})))

    def again(self, frontier: Frontier) -> Frontier:
        """The same branches, with slopes and multipliers as at the beginning."""
        signs = frontier.choices.signs
        begin = self.begin.without_shares().rows(frontier.form)
        zeros = {k: torch.zeros_like(begin.slopes[relu][0]) for k, relu in self.fast.relus.items()}
        return replace(frontier, choices=Choices(begin.slopes, signs, zeros))

    def grown(self, frontier: Frontier, splits: int, seconds: float) -> Frontier:
        """Split open branches, those of the smallest bounds first.

        Args:
            splits, seconds: ends once so many were split, or after that time.
        """
        begun, done = time.monotonic(), 0
        while len(frontier.form) and done < splits and time.monotonic() - begun < seconds:
            order, many = frontier.lower.argsort(), min(_TOGETHER, splits - done)
            now, rest = frontier.rows(order[:many]), frontier.rows(order[many:])
            shares = self.begin.rows(now.form)
            children = self._split(replace(now, choices=now.choices.with_shares(shares)))
            if children is None:
                frontier = replace(frontier, stuck=True)
                break
            a = self.forms[children.form]
            _, choices = self.fast.raised(a.float(), children.choices, _STEPS, self.enough)
            sound = self.exact.value(a, choices.double(), sound=True)
            lower = torch.maximum(children.lower, sound)
            closed = min([frontier.closed, *lower[lower > 0].tolist()])
            kept = replace(children, lower=lower, choices=choices.without_shares())
            kept = kept.rows((lower <= 0).nonzero()[:, 0])
            done += len(now.form)
            frontier = replace(
                frontier,
                closed=closed,
                form=torch.cat([rest.form, kept.form]),
                lower=torch.cat([rest.lower, kept.lower]),
                choices=joined([rest.choices, kept.choices]),
            )
        return replace(
            frontier,
            splits=frontier.splits + done,
            seconds=frontier.seconds + time.monotonic() - begun,
        )

    def _split(self, frontier: Frontier) -> Frontier | None:
        """Both children of each branch; ``None`` where a branch has no open sign left.

        In each layer the candidates are the elements whose planes cost the bound most; the one
        whose children have the largest bounds is split, where a bound that certifies a child counts
        no more than that (filtered smart branching).

        Source: De Palma et al., "Improved branch and bound for neural network verification via
        Lagrangian decomposition", 2021.
        """
        if not self.fast.relus:
            return None
        a = self.forms[frontier.form].float()
        best = torch.full_like(a.flatten(1)[:, 0], -torch.inf)
        chosen: list[Choices] = [frontier.choices, frontier.choices]
        count = max(1, _ALL_CANDIDATES // max(1, len(self.fast.relus)))
        for source, costs in self._costs(a, frontier.choices).items():
            cost, element = costs.topk(min(count, costs.shape[1]), 1)
            for i in range(element.shape[1]):
                pair = [_assumed(frontier.choices, source, element[:, i], s) for s in (1, -1)]
                values = [self.fast.value(a, child) for child in pair]
                score = values[0].clamp(max=self.enough) + values[1].clamp(max=self.enough)
                score = torch.where(cost[:, i] > 0, score, -torch.inf)
                take = score > best
                best = torch.where(take, score, best)
                chosen = [_where(take, new, old) for new, old in zip(pair, chosen, strict=True)]
        if torch.isneginf(best).any():
            return None
        return Frontier(
            form=torch.cat([frontier.form] * 2),
            lower=torch.cat([frontier.lower] * 2),
            choices=joined(chosen),
        )

    def _costs(self, a: Tensor, choices: Choices) -> dict[int, Tensor]:
        """By the input node of a ReLU, what each element's planes cost the bound, ``(p, u)``."""
        costs = {}
        planes = self.fast.planes(choices)
        with torch.enable_grad():
            # The gradients of the shifts are the coefficients, split by their sign.
            shifts = {
                source: (
                    planes[k].open.lower_shift.expand_as(choices.signs[source]).clone(),
                    planes[k].open.upper_shift.expand_as(choices.signs[source]).clone(),
                )
                for source, k in self.fast.relus.items()
            }
            for source, k in self.fast.relus.items():
                below, above = (part.requires_grad_() for part in shifts[source])
                opened = replace(planes[k].open, lower_shift=below, upper_shift=above)
                planes[k] = replace(planes[k], open=opened)
            value = self.fast.value(a, choices, planes=planes)
            flat = [part for pair in shifts.values() for part in pair]
            gradient = iter(torch.autograd.grad(value.sum(), flat))
        for source, k in self.fast.relus.items():
            positive, negative = next(gradient), next(gradient)
            low, high = self.fast.range(k, choices)
            slope = choices.slopes[k][0]
            below = positive * torch.minimum(-low * slope, high * (1 - slope))
            above = -negative * planes[k].open.upper_shift.detach()
            assumed = choices.signs[source] != 0
            costs[source] = torch.maximum(below, above).masked_fill(assumed, 0)
        return costs


def _assumed(choices: Choices, source: int, element: Tensor, sign: int) -> Choices:
    signs = choices.signs[source].scatter(1, element[:, None], sign)
    return replace(choices, signs={**choices.signs, source: signs})


def _where(take: Tensor, new: Choices, old: Choices) -> Choices:
    """The rows of one or the other; they differ in their signs only."""
    signs = {k: torch.where(take[:, None], new.signs[k], old.signs[k]) for k in old.signs}
    return replace(old, signs=signs)
