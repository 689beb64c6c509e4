"""The sequential test: attack examples in random order, cheap attacks first, until it decides.

It works on counts and outcomes only, so that simulations run the same code as gates.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robaudit.errors import NotMeasuredError
from robaudit.measures import stages
from robaudit.statistics import Stratum, population_counts, settled, stratified_counts
from robaudit.types import Progress

# Examples of the first block, and the minimum of the following ones.
BLOCK = 64

Rows = NDArray[Any]
# Weight of the prior, in examples. It is centred on the threshold, where a decision takes longest;
# chosen by benchmarks/gate.py.
WEIGHT = 40.0

# A part of the chain may need this many times the draws of the whole chain.
PATIENCE = 1.3

# Given an attack and examples, which of them withstand it.
Attack = Callable[[str, Rows], Rows]


@dataclass(frozen=True)
class Hypothesis:
    """That at least ``least`` of the population withstand every attack of ``chain``.

    Attributes:
        alpha: the largest probability of a wrong decision, either way.
        min_n: draws before a decision.
        before: ``(population,)`` another classifier's outcomes, to pair with.
    """

    chain: tuple[str, ...]
    least: int
    alpha: float = 0.05
    min_n: int = 1
    before: Rows | None = field(default=None, compare=False)

    def prior(self, population: int) -> tuple[float, float]:
        centre = min(max(self.least / population, 0.0), 1.0)
        return max(1.0, WEIGHT * centre), max(1.0, WEIGHT * (1 - centre))


@dataclass(frozen=True)
class SequentialResult:
    """What ``draws`` examples tell about a :class:`Hypothesis`.

    Attributes:
        decided: whether the hypothesis holds; ``None`` while undecided.
        certain: withstood the whole chain.
        possible: were not broken: ``certain``, and those that no dearer attack was needed for.
        low, high: the population's count, at any time together with probability ``1 - alpha``.
        share: of the population that withstands, estimated from ``possible``.
        failed: why an attack of the chain could not be run.
        seconds: from the beginning.
    """

    decided: bool | None
    draws: int
    certain: int
    possible: int
    low: int
    high: int
    share: float
    failed: str | None
    seconds: float


def sequential_test(
    hypotheses: Sequence[Hypothesis],
    order: Rows,
    attack: Attack,
    *,
    max_n: int | None = None,
    exhaustive: bool = False,
    tell: Progress | None = None,
) -> list[SequentialResult]:
    """Draw examples in ``order``, in growing blocks, until every hypothesis is decided.

    A decision is wrong with probability at most ``alpha``, however often the data is looked at,
    because the confidence sequence holds at all times. An example that is not broken yet counts as
    robust for deciding ``False`` and as broken for deciding ``True``. The ends of the sequence are
    monotone in the successes, so that stopping before the dearest attack does not cost accuracy.

    Args:
        order: ``(population,)`` the examples in random order.
        attack: may raise :class:`NotMeasuredError`, which ends the hypotheses that need it.
        max_n: the most examples to draw.
        exhaustive: draw all of them, whatever is decided before.
    """
    began = time.perf_counter()
    population = len(order)
    cap = population if exhaustive or max_n is None else min(max_n, population)
    prices = stages()
    known = _Known(population, list(prices))
    found: dict[int, SequentialResult] = {}
    failed: dict[str, str] = {}
    drawn = 0
    while len(found) < len(hypotheses):
        drawn = min(cap, drawn + max(BLOCK, drawn // 8 // BLOCK * BLOCK))
        rows = order[:drawn]
        last = drawn == cap
        for stage in prices:
            asking = [
                hypothesis
                for place, hypothesis in enumerate(hypotheses)
                if place not in found
                and stage in hypothesis.chain
                and not failed.keys() & set(hypothesis.chain)
                and (exhaustive or last or _worth(hypothesis, stage, prices, known, rows, cap))
            ]
            todo = known.todo(stage, asking, rows)
            if len(todo):
                try:
                    known.stands[stage][todo] = attack(stage, todo)
                except NotMeasuredError as error:
                    failed[stage] = error.message
            for place, hypothesis in enumerate(hypotheses):
                over = last and stage == hypothesis.chain[-1]
                if place in found or stage not in hypothesis.chain or (exhaustive and not over):
                    continue
                decided = None
                if drawn >= min(hypothesis.min_n, cap):
                    decided = _decided(hypothesis, known, rows)
                reason = next((failed[one] for one in hypothesis.chain if one in failed), None)
                if decided is not None or reason is not None or over:
                    found[place] = _result(hypothesis, known, rows, decided, reason, began)
        if tell is not None:
            tell(drawn, cap)
    return [found[place] for place in range(len(hypotheses))]


class _Known:
    """Outcomes so far, by attack: 1 for robust examples, 0 for broken ones, -1 for unknown."""

    def __init__(self, population: int, attacks: Sequence[str]) -> None:
        self.population = population
        self.stands = {name: np.full(population, -1, dtype=np.int8) for name in attacks}

    def unbroken(self, chain: Sequence[str], rows: Rows) -> Rows:
        return _all(len(rows), [self.stands[stage][rows] != 0 for stage in chain])

    def robust(self, chain: Sequence[str], rows: Rows) -> Rows:
        return _all(len(rows), [self.stands[stage][rows] == 1 for stage in chain])

    def todo(self, stage: str, asking: Sequence[Hypothesis], rows: Rows) -> Rows:
        """The rows that some hypothesis needs the attack on."""
        needed = np.zeros(len(rows), dtype=bool)
        for hypothesis in asking:
            before = hypothesis.chain[: hypothesis.chain.index(stage)]
            needed |= self.robust(before, rows)
        todo: Rows = rows[needed & (self.stands[stage][rows] == -1)]
        return todo


def _all(n: int, masks: Sequence[Rows]) -> Rows:
    whole = np.ones(n, dtype=bool)
    for mask in masks:
        whole &= mask
    return whole


def _decided(hypothesis: Hypothesis, known: _Known, rows: Rows) -> bool | None:
    if hypothesis.before is not None:
        low, high = _ends(hypothesis, known, rows)
        return True if low >= hypothesis.least else False if high < hypothesis.least else None
    draws, population = len(rows), known.population
    least, alpha, prior = hypothesis.least, hypothesis.alpha, hypothesis.prior(population)
    certain = int(known.robust(hypothesis.chain, rows).sum())
    possible = int(known.unbroken(hypothesis.chain, rows).sum())
    if settled(certain, draws, population, least, alpha, prior) is True:
        return True
    return False if settled(possible, draws, population, least, alpha, prior) is False else None


def _ends(hypothesis: Hypothesis, known: _Known, rows: Rows) -> tuple[int, int]:
    robust, unbroken = known.robust(hypothesis.chain, rows), known.unbroken(hypothesis.chain, rows)
    if hypothesis.before is None:
        draws, population = len(rows), known.population
        alpha, prior = hypothesis.alpha, hypothesis.prior(population)
        return (
            population_counts(int(robust.sum()), draws, population, alpha, prior).low,
            population_counts(int(unbroken.sum()), draws, population, alpha, prior).high,
        )
    stood = hypothesis.before.astype(bool)
    strata = [
        Stratum(
            int(part.sum()),
            int(part[rows].sum()),
            int(robust[part[rows]].sum()),
            int(unbroken[part[rows]].sum()),
        )
        for part in (stood, ~stood)
    ]
    counts = stratified_counts(strata[0], strata[1], hypothesis.alpha)
    return counts.low, counts.high


def _result(
    hypothesis: Hypothesis,
    known: _Known,
    rows: Rows,
    decided: bool | None,
    failed: str | None,
    began: float,
) -> SequentialResult:
    low, high = _ends(hypothesis, known, rows)
    unbroken = known.unbroken(hypothesis.chain, rows)
    share = float(unbroken.mean())
    if hypothesis.before is not None:
        parts = [
            part
            for part in (hypothesis.before.astype(bool), ~hypothesis.before.astype(bool))
            if part[rows].any()
        ]
        sizes = [int(part.sum()) for part in parts]
        share = sum(
            size * float(unbroken[part[rows]].mean())
            for size, part in zip(sizes, parts, strict=True)
        ) / sum(sizes)
    return SequentialResult(
        decided=decided,
        draws=len(rows),
        certain=int(known.robust(hypothesis.chain, rows).sum()),
        possible=int(unbroken.sum()),
        low=low,
        high=high,
        share=share,
        failed=None if decided is not None else failed,
        seconds=time.perf_counter() - began,
    )


def _worth(
    hypothesis: Hypothesis,
    stage: str,
    passes: Mapping[str, int],
    known: _Known,
    rows: Rows,
    cap: int,
) -> bool:
    """Whether the rows should go through this attack now, or wait while cheaper ones decide.

    Only for speed; it touches no guarantee. Each depth of the chain is priced: the draws until it
    would decide at the rates seen so far, times what a draw costs, and what the rows drawn so far
    still lack. Short of the whole chain only ``False`` can be decided. As the rates are rough, a
    depth that would take many more draws than the whole chain is not trusted. The first block goes
    through all attacks, to see what the dearer ones add.
    """
    chain, draws = hypothesis.chain, len(rows)
    at = chain.index(stage)
    if at == 0 or draws <= BLOCK:
        return True
    rates, prices = [1.0], []
    unit, lacking, alive = 0.0, 0.0, float(draws)
    for place, name in enumerate(chain):
        entered = known.robust(chain[:place], rows)
        tried = int((entered & (known.stands[name][rows] != -1)).sum())
        stood = int((entered & (known.stands[name][rows] == 1)).sum())
        survive = (stood + 0.5) / (tried + 1)
        unit += passes[name] * rates[-1]
        lacking += passes[name] * (alive - tried)
        alive = stood + (alive - tried) * survive
        rates.append(rates[-1] * survive)
        prices.append((unit, lacking))
    whole = _draws_to_settle(hypothesis, rates[-1], draws, cap, known.population, either=True)
    best, best_price = len(chain) - 1, (whole - draws) * unit + lacking
    for depth, (unit, lacking) in enumerate(prices[:-1]):
        needed = _draws_to_settle(hypothesis, rates[depth + 1], draws, cap, known.population)
        price = (needed - draws) * unit + lacking
        if needed <= PATIENCE * whole and price < best_price:
            best, best_price = depth, price
    return best >= at


def _draws_to_settle(
    hypothesis: Hypothesis, rate: float, draws: int, cap: int, population: int, either: bool = False
) -> float:
    """Draws until a share of ``rate`` decides ``False``, or ``either``: then at most ``cap``."""
    prior = hypothesis.prior(population)

    def enough(t: int) -> bool:
        found = settled(round(rate * t), t, population, hypothesis.least, hypothesis.alpha, prior)
        return found is False or (either and found is True)

    if not enough(cap):
        return cap if either else float("inf")
    low, high = draws, cap
    while high - low > BLOCK:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high
