"""Decides a rule by a sequential test or a measurement, and states the decision in a sentence."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from robaudit.errors import NotMeasuredError
from robaudit.gate.baseline import Before
from robaudit.gate.policy import Rule
from robaudit.gate.sequential import Hypothesis, SequentialResult
from robaudit.measures import find
from robaudit.schema import IN_DOUBT, Decision, Interval, Measurement, Outcome
from robaudit.statistics import degrees_of, from_standard_error

# Rounding errors of a decimal fraction times the population are no reason to require one more.
_SLACK = 1e-9


def hypothesis(rule: Rule, population: int, before: Before | None) -> Hypothesis:
    """The rule in counts; a ``max`` passes where its hypothesis is rejected."""
    at = rule.threshold * population
    if rule.kind == "max":
        least = math.floor(at + _SLACK * population) + 1
    else:
        reference = before.successes - at if before is not None else at
        least = math.ceil(reference - _SLACK * population)
    return Hypothesis(
        chain=find(rule.metric).stages if before is None else before.chain,
        least=least,
        alpha=rule.alpha,
        min_n=rule.min_n,
        before=None if before is None else before.outcomes,
    )


def from_result(
    rule: Rule,
    suite: str,
    asked: Hypothesis,
    result: SequentialResult,
    population: int,
    before: Before | None,
    words: dict[str, str],
) -> Decision:
    """The decision on an accuracy.

    Args:
        words: the attacks' names in a sentence.
    """
    outcome: Outcome = "inconclusive"
    if result.decided is not None:
        outcome = "pass" if result.decided == (rule.kind != "max") else "fail"
    digits = max(2, math.ceil(math.log10(population)))
    low, high = (f"{count / population:.{digits}f}" for count in (result.low, result.high))
    number = f"at most {result.possible}" if result.possible > result.certain else result.certain
    looked = f"{number} of {result.draws} examples looked at {_did(asked.chain, words)}"
    if result.low == result.high:
        spread = f"of all {population}, {low} do"
    else:
        spread = (
            f"with error at most {100 * rule.alpha:g} %, between {low} and {high} of the "
            f"{population} do"
        )
    sentence = f"{looked}; {spread}"
    if before is not None:
        kind = "" if before.outcomes is not None else ", its examples not known one by one"
        sentence += f"; of the baseline {before.successes / population:.{digits}f}{kind}"
    reason = None
    if outcome == "inconclusive":
        reason = result.failed or (
            f"the {result.draws} examples that max_n allows leave it open"
            if result.draws < population
            else "some examples could not be judged"
        )
    return Decision(
        **_of(rule, suite),
        outcome=outcome,
        sentence=f"{sentence}.",
        value=result.share,
        interval=Interval(
            low=result.low / population,
            high=result.high / population,
            level=1 - rule.alpha,
            method="prior-posterior-ratio",
        ),
        examples=result.draws,
        population=population,
        baseline=None if before is None else before.successes / population,
        reason=reason,
        seconds=result.seconds,
    )


def from_measurement(rule: Rule, suite: str, found: Measurement | None) -> Decision:
    """The decision on a number that an audit measured, by its error bar at level 1 - 2 alpha.

    The true value then lies beyond each end with probability at most ``alpha``, if the estimate is
    nearly normal; for few draws, Student's t distribution is used.
    """
    if found is None or found.status != "ok" or found.value is None:
        reason = "was not measured" if found is None or found.reason is None else found.reason
        seconds = None if found is None else found.seconds
        return undecided(rule, suite, "Not measured.", reason, seconds=seconds)
    value, examples = found.value, f" on {found.n} examples" if found.n else ""
    interval = _interval(rule, found)
    if interval is None and find(rule.metric).error_bar != "exact":
        return undecided(
            rule,
            suite,
            f"{value:.6g}{examples}, without an error bar.",
            "a number without an error bar decides nothing",
            value=value,
            examples=found.n,
            seconds=found.seconds,
        )
    low, high = (value, value) if interval is None else (interval.low, interval.high)
    if rule.kind == "min":
        passed, failed = low >= rule.threshold, high < rule.threshold
    else:
        passed, failed = high <= rule.threshold, low > rule.threshold
    outcome: Outcome = "pass" if passed else "fail" if failed else "inconclusive"
    spread = "exactly"
    if interval is not None:
        spread = f"with error at most {100 * rule.alpha:g} %, between {low:.5g} and {high:.5g}"
    return Decision(
        **_of(rule, suite),
        outcome=outcome,
        sentence=f"{value:.5g}{examples}; {spread}.",
        value=value,
        interval=interval,
        examples=found.n,
        reason=None if passed or failed else "the threshold lies inside the error bar",
        seconds=found.seconds,
    )


def undecided(rule: Rule, suite: str, sentence: str, reason: str, **fields: Any) -> Decision:
    """A rule that is inconclusive for that reason."""
    return Decision(
        **_of(rule, suite), outcome="inconclusive", sentence=sentence, reason=reason, **fields
    )


def doubting(
    decision: Decision,
    doubts: Sequence[str],
    allowed: bool,
    baseline: Sequence[str] = (),
) -> Decision:
    """The decision in view of doubts about its value and about the baseline's.

    Doubts of an attack mean that a stronger one would find less robustness: a minimum
    that is not reached even so stays failed. An overstated baseline makes a drop look larger, so
    that a drop within the limit still passes. Everything else is inconclusive.
    """
    own, its = list(dict.fromkeys(doubts)), list(dict.fromkeys(baseline))
    listed = [*own, *(f"of the baseline: {text}" for text in its)]
    decision = decision.model_copy(update={"doubts": listed})
    stands = {
        "pass": not own,
        "fail": not its and (not own or _fails_even_if_overstated(decision)),
        "inconclusive": True,
    }[decision.outcome]
    if allowed or stands:
        return decision
    return decision.model_copy(
        update={"outcome": "inconclusive", "reason": f"{IN_DOUBT}{'; '.join(listed)}"}
    )


def _fails_even_if_overstated(decision: Decision) -> bool:
    """Whether a rule that failed still fails if a stronger attack finds less robustness.

    That holds for minimal accuracies and distances, maximal losses, and drops.
    """
    measure = find(decision.metric)
    good = {"higher": "min", "lower": "max", None: None}[measure.better]
    absolute = measure.section in ("Accuracy", "Loss")
    return decision.rule == "max_drop" or (absolute and decision.rule == good)


def _interval(rule: Rule, found: Measurement) -> Interval | None:
    level = 1 - 2 * rule.alpha
    if found.standard_error is not None and found.value is not None:
        try:
            degrees = degrees_of(found.interval)
            return from_standard_error(found.value, found.standard_error, degrees, level)
        except NotMeasuredError:
            return None
    # An interval of a higher level is wider and errs less often.
    return found.interval if found.interval and found.interval.level >= level else None


def _of(rule: Rule, suite: str) -> dict[str, Any]:
    return {
        "metric": rule.metric,
        "suite": suite,
        "rule": rule.kind,
        "threshold": rule.threshold,
        "severity": rule.severity,
        "alpha": rule.alpha,
        "line": rule.line,
    }


def _did(chain: tuple[str, ...], words: dict[str, str]) -> str:
    if chain == ("clean",):
        return "were classified correctly"
    if find(f"accuracy.{chain[-1]}").basis == "proof":
        before = f"{_did(chain[:-1], words)} and " if len(chain) > 2 else ""
        return f"{before}were certified"
    named = [words[stage] for stage in chain if stage != "clean"]
    listed = named[0] if len(named) == 1 else f"{', '.join(named[:-1])} and {named[-1]}"
    return f"withstood {listed}"
