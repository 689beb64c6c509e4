"""Numbers for people: rounded to the precision of their error bars, with units."""

from __future__ import annotations

import math
from dataclasses import dataclass

from robaudit.schema import Measurement

_MOST_DECIMALS = 6
DOUBTED = "?"


@dataclass(frozen=True)
class Shown:
    """A measurement's value, its interval or standard error (or ``""``), and its unit.

    A value that is in doubt ends in :data:`DOUBTED`.
    """

    value: str
    spread: str
    unit: str

    def __str__(self) -> str:
        unit = self.unit if self.unit in ("%", "points") else ""
        if self.spread.startswith("±"):
            return " ".join(part for part in (self.value, self.spread, unit) if part)
        return " ".join(part for part in (self.value, unit, self.spread) if part)


def shown(measurement: Measurement, prefer_error: bool = False) -> Shown:
    """The measurement rounded to two digits of its uncertainty; fractions in per cent.

    Args:
        measurement: one with a value.
        prefer_error: the standard error rather than the interval, where both are there and the
            value is no fraction (whose intervals are not symmetric).
    """
    assert measurement.value is not None
    fraction = measurement.unit == "fraction"
    factor = 100 if fraction else 1
    value = measurement.value * factor
    error = None if measurement.standard_error is None else measurement.standard_error * factor
    interval = measurement.interval
    if interval is not None and not (prefer_error and error is not None and not fraction):
        low, high = interval.low * factor, interval.high * factor
        # Without a standard error: at 95 %, a quarter of the interval's width is about one.
        spread_of_one = (high - low) / (2 if fraction else 4) if fraction or not error else error
        form = _form(value, max(abs(low), abs(high)), spread_of_one, fraction)
        spread = f"[{form(low)}, {form(high)}]"
    elif error is not None:
        form = _form(value, abs(value), error, fraction)
        spread = f"± {_error(error, form)}"
    else:
        form = _form(value, abs(value), None, fraction)
        spread = ""
    unit = measurement.unit
    if fraction:
        unit = "points" if measurement.split == "gap" else "%"
    return Shown(form(value) + (DOUBTED if measurement.doubts else ""), spread, unit)


def number(value: float, digits: int = 4) -> str:
    """A number without an error bar, to ``digits`` significant digits.

    >>> number(1990.31), number(0.00071234), number(1.5e9)
    ('1990', '7.123e-4', '1.500e9')
    """
    return _Form.of(value, abs(value), digits)(value)


def shown_number(value: float, error: float | None) -> tuple[str, str]:
    """A number and its standard error, to two digits of the error; ``""`` for none.

    >>> shown_number(40.2, 1.23), shown_number(40.2, None)
    (('40.2', '1.2'), ('40.20', ''))
    """
    form = _form(value, abs(value), error, False)
    return form(value), "" if error is None else _error(error, form)


def aligned(values: list[str]) -> list[str]:
    """Numbers padded on the right, so that their decimal points line up when flush right.

    >>> aligned(["1.25", "80"])
    ['1.25', '80   ']
    """
    tails = [len(value) - len(value.partition(".")[0]) for value in values]
    widest = max(tails, default=0)
    return [
        value + " " * (widest - tail) if value else ""
        for value, tail in zip(values, tails, strict=True)
    ]


def percent(fraction: float) -> str:
    """A fraction in per cent, one decimal.

    >>> percent(0.534)
    '53.4 %'
    """
    return f"{100 * fraction:z.1f} %"


@dataclass(frozen=True)
class _Form:
    decimals: int
    exponent: int = 0

    @classmethod
    def of(cls, value: float, biggest: float, digits: int) -> _Form:
        """To ``digits`` significant digits of the value."""
        exponent = _exponent(biggest)
        place = _place(value if value else biggest)
        return cls(_clamp(digits - 1 - place + exponent), exponent)

    def __call__(self, value: float) -> str:
        tail = f"e{self.exponent}" if self.exponent else ""
        return f"{value / 10.0**self.exponent:z.{self.decimals}f}{tail}"


def _form(value: float, biggest: float, uncertainty: float | None, fraction: bool) -> _Form:
    if fraction:  # one decimal, as is usual for accuracies; two where the error is small
        narrow = uncertainty is not None and 0 < uncertainty < 0.3
        return _Form(2 if narrow else 1)
    biggest = max(biggest, abs(value))
    if not uncertainty:
        return _Form.of(value, biggest, 4)
    exponent = _exponent(biggest)
    decimals = 1 - _place(uncertainty) + exponent
    # The standard error may be rounding error alone: six digits of the value are enough.
    most = max(0, 5 - _place(biggest) + exponent)
    return _Form(_clamp(min(decimals, most)), exponent)


def _error(error: float, form: _Form) -> str:
    text = form(error)
    # An error that would round to zero at the value's digits is shown with its own.
    return text if not error or any(digit in text for digit in "123456789") else f"{error:.1g}"


def _place(value: float) -> int:
    return math.floor(math.log10(abs(value))) if value else 0


def _exponent(biggest: float) -> int:
    place = _place(biggest)
    return place if biggest and not -3 <= place < 5 else 0


def _clamp(decimals: int) -> int:
    return max(0, min(_MOST_DECIMALS, decimals))
