"""The decision: attack examples in random order, cheap attacks first, until nothing is in doubt.

Knows counts and outcomes alone, so that a simulation runs the very code that a gate runs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robaudit.errors import NotMeasuredError
from robaudit.gate.metrics import STAGES
from robaudit.statistics import Stratum, population_counts, settled, stratified_counts
from robaudit.types import Progress

# Examples of the first block, and the least of the following ones: what attacks work on at once.
BLOCK = 64

Rows = NDArray[Any]
# Of the prior, in examples: it is centred on the threshold, where deciding takes longest. Measured
# in benchmarks/gate.py.
WEIGHT = 40.0

# How many times the draws of the whole chain a part of it may take.
PATIENCE = 1.3

# Which of these examples an attack leaves standing; they stood before it.
Attack = Callable[[str, Rows], Rows]


@dataclass(frozen=True)
class Question:
    """Whether at least ``least`` of the population withstand every attack of ``chain``.

    Attributes:
        alpha: the most often that a decision, either way, may be wrong.
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
class Answer:
    """What ``draws`` examples say.

    Attributes:
        decided: at least ``least`` or not; ``None`` while in doubt.
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


def answers(
    questions: Sequence[Question],
    order: Rows,
    attack: Attack,
    *,
    max_n: int | None = None,
    exhaustive: bool = False,
    tell: Progress | None = None,
) -> list[Answer]:
    """Draw examples in ``order``, in growing blocks, until every question is decided.

    All looks together, a decision is wrong with probability at most ``alpha``, as the confidence
    sequence holds at all times. An example that is not broken yet counts as robust for deciding
    ``False`` and as broken for deciding ``True``, so that stopping before the dearest attack costs
    nothing: the ends of the sequence are monotone in the successes.

    Args:
        order: ``(population,)`` the examples in random order.
        attack: may raise :class:`NotMeasuredError`, which ends the questions that need it.
        max_n: the most examples to draw.
        exhaustive: draw all of them, whatever is decided before.
    """
    began = time.perf_counter()
    population = len(order)
    cap = population if exhaustive or max_n is None else min(max_n, population)
    known = _Known(population)
    found: dict[int, Answer] = {}
    failed: dict[str, str] = {}
    drawn = 0
    while len(found) < len(questions):
        drawn = min(cap, drawn + max(BLOCK, drawn // 8 // BLOCK * BLOCK))
        rows = order[:drawn]
        last = drawn == cap
        for stage in STAGES:
            asking = [
                question
                for place, question in enumerate(questions)
                if place not in found
                and stage in question.chain
                and not failed.keys() & set(question.chain)
                and (exhaustive or last or _worth(question, stage, known, rows, cap))
            ]
            todo = known.todo(stage, asking, rows)
            if len(todo):
                try:
                    known.stands[stage][todo] = attack(stage, todo)
                except NotMeasuredError as error:
                    failed[stage] = error.message
            for place, question in enumerate(questions):
                over = last and stage == question.chain[-1]
                if place in found or stage not in question.chain or (exhaustive and not over):
                    continue
                decided = None
                if drawn >= min(question.min_n, cap):
                    decided = _decided(question, known, rows)
                reason = next((failed[one] for one in question.chain if one in failed), None)
                if decided is not None or reason is not None or over:
                    found[place] = _answer(question, known, rows, decided, reason, began)
        if tell is not None:
            tell(drawn, cap)
    return [found[place] for place in range(len(questions))]


class _Known:
    """Outcomes so far: by attack, 1 for an example that stood, 0 for a broken one, -1 unknown."""

    def __init__(self, population: int) -> None:
        self.population = population
        self.stands = {stage: np.full(population, -1, dtype=np.int8) for stage in STAGES}

    def unbroken(self, chain: Sequence[str], rows: Rows) -> Rows:
        return _all(len(rows), [self.stands[stage][rows] != 0 for stage in chain])

    def robust(self, chain: Sequence[str], rows: Rows) -> Rows:
        return _all(len(rows), [self.stands[stage][rows] == 1 for stage in chain])

    def todo(self, stage: str, asking: Sequence[Question], rows: Rows) -> Rows:
        """The rows that some question needs the attack on."""
        needed = np.zeros(len(rows), dtype=bool)
        for question in asking:
            before = question.chain[: question.chain.index(stage)]
            needed |= self.robust(before, rows)
        todo: Rows = rows[needed & (self.stands[stage][rows] == -1)]
        return todo


def _all(n: int, masks: Sequence[Rows]) -> Rows:
    whole = np.ones(n, dtype=bool)
    for mask in masks:
        whole &= mask
    return whole


def _decided(question: Question, known: _Known, rows: Rows) -> bool | None:
    if question.before is not None:
        low, high = _ends(question, known, rows)
        return True if low >= question.least else False if high < question.least else None
    draws, population = len(rows), known.population
    least, alpha, prior = question.least, question.alpha, question.prior(population)
    certain = int(known.robust(question.chain, rows).sum())
    possible = int(known.unbroken(question.chain, rows).sum())
    if settled(certain, draws, population, least, alpha, prior) is True:
        return True
    return False if settled(possible, draws, population, least, alpha, prior) is False else None


def _ends(question: Question, known: _Known, rows: Rows) -> tuple[int, int]:
    robust, unbroken = known.robust(question.chain, rows), known.unbroken(question.chain, rows)
    if question.before is None:
        draws, population = len(rows), known.population
        alpha, prior = question.alpha, question.prior(population)
        return (
            population_counts(int(robust.sum()), draws, population, alpha, prior).low,
            population_counts(int(unbroken.sum()), draws, population, alpha, prior).high,
        )
    stood = question.before.astype(bool)
    strata = [
        Stratum(int(part.sum()), int(part[rows].sum()), int(robust[part[rows]].sum()),
                int(unbroken[part[rows]].sum()))
        for part in (stood, ~stood)
    ]  # fmt: skip
    counts = stratified_counts(strata[0], strata[1], question.alpha)
    return counts.low, counts.high


def _answer(
    question: Question,
    known: _Known,
    rows: Rows,
    decided: bool | None,
    failed: str | None,
    began: float,
) -> Answer:
    low, high = _ends(question, known, rows)
    unbroken = known.unbroken(question.chain, rows)
    share = float(unbroken.mean())
    if question.before is not None:
        parts = [part for part in (question.before.astype(bool), ~question.before.astype(bool))
                 if part[rows].any()]  # fmt: skip
        sizes = [int(part.sum()) for part in parts]
        share = sum(
            size * float(unbroken[part[rows]].mean())
            for size, part in zip(sizes, parts, strict=True)
        ) / sum(sizes)
    return Answer(
        decided=decided,
        draws=len(rows),
        certain=int(known.robust(question.chain, rows).sum()),
        possible=int(unbroken.sum()),
        low=low,
        high=high,
        share=share,
        failed=None if decided is not None else failed,
        seconds=time.perf_counter() - began,
    )


def _worth(question: Question, stage: str, known: _Known, rows: Rows, cap: int) -> bool:
    """Whether the rows should go through this attack now, or wait while cheaper ones decide.

    Only for speed; it touches no guarantee. Each depth of the chain is priced: the draws until it
    would decide at the rates seen so far, times what a draw costs, and what the rows drawn so far
    still lack. Short of the whole chain only ``False`` can be decided. As the rates are rough, a
    depth that would take many more draws than the whole chain is not trusted. The first block goes
    through all attacks, to see what the dearer ones add.
    """
    chain, draws = question.chain, len(rows)
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
        unit += STAGES[name] * rates[-1]
        lacking += STAGES[name] * (alive - tried)
        alive = stood + (alive - tried) * survive
        rates.append(rates[-1] * survive)
        prices.append((unit, lacking))
    whole = _draws_to_settle(question, rates[-1], draws, cap, known.population, either=True)
    best, best_price = len(chain) - 1, (whole - draws) * unit + lacking
    for depth, (unit, lacking) in enumerate(prices[:-1]):
        needed = _draws_to_settle(question, rates[depth + 1], draws, cap, known.population)
        price = (needed - draws) * unit + lacking
        if needed <= PATIENCE * whole and price < best_price:
            best, best_price = depth, price
    return best >= at


def _draws_to_settle(
    question: Question, rate: float, draws: int, cap: int, population: int, either: bool = False
) -> float:
    """Draws until a share of ``rate`` decides ``False``, or ``either``: then at most ``cap``."""
    prior = question.prior(population)

    def enough(t: int) -> bool:
        found = settled(round(rate * t), t, population, question.least, question.alpha, prior)
        return found is False or (either and found is True)

    if not enough(cap):
        return cap if either else float("inf")
    low, high = draws, cap
    while high - low > BLOCK:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high
