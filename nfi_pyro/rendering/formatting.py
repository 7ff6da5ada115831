"""Numbers as a reader sees them: true minus sign, one unit each, `n/a` for what is missing."""

import math

import numpy as np
import pandas as pd

MISSING = "n/a"


def number(value: float, digits: int = 3, *, signed: bool = False) -> str:
    """Return `value` with `digits` decimals, thousands commas and a true minus sign.

    Parameters
    ----------
    value : float
        NaN gives ``n/a``; infinities give ``∞`` or ``−∞``.
    digits : int
        Decimals.
    signed : bool
        Write a plus sign before positive values.
    """
    value = float(value)
    if math.isnan(value):
        return MISSING
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    text = f"{value:{'+' if signed else ''},.{digits}f}"
    if not any(character in "123456789" for character in text):
        text = text.lstrip("+-")  # a rounded zero has no sign
    return text.replace("-", "−")


def digits_for(values: pd.Series, significant: int = 3) -> int:
    """Return decimals, 0 to 6, that give the largest of `values` some significant digits."""
    largest = float(np.nanmax(np.abs(values.to_numpy(dtype=float)), initial=0.0))
    if not largest > 0.0 or math.isinf(largest):
        return 2
    return min(max(significant - 1 - math.floor(math.log10(largest)), 0), 6)


def percent(value: float, digits: int = 2, *, signed: bool = False) -> str:
    """Return a decimal as percent, for example 0.0123 as ``1.23%``; NaN gives ``n/a``."""
    text = number(100.0 * float(value), digits, signed=signed)
    return text if text == MISSING else f"{text}%"


def basis_points(value: float, digits: int = 1, *, signed: bool = False) -> str:
    """Return a decimal in basis points, for example 0.0012 as ``12.0 bp``; NaN gives ``n/a``."""
    text = number(1e4 * float(value), digits, signed=signed)
    return text if text == MISSING else f"{text} bp"


def nats(value: float, digits: int = 4, *, signed: bool = False) -> str:
    """Return a log density with its unit, for example ``0.0123 nats``; NaN gives ``n/a``."""
    text = number(value, digits, signed=signed)
    return text if text == MISSING else f"{text} nats"


def p_value(value: float) -> str:
    """Return a p-value with three decimals, ``<0.001`` below that; NaN gives ``n/a``."""
    return "<0.001" if value < 0.0005 else number(value, 3)


def count(value: float) -> str:
    """Return a whole number with thousands commas; NaN gives ``n/a``."""
    return number(value, 0)


def interval(lower: float, upper: float, digits: int = 3) -> str:
    """Return ``lower to upper``; an interval with a NaN end is ``n/a``."""
    if math.isnan(lower) or math.isnan(upper):
        return MISSING
    return f"{number(lower, digits)} to {number(upper, digits)}"


def percent_interval(lower: float, upper: float, digits: int = 1) -> str:
    """Return ``lower to upper`` in percent; an interval with a NaN end is ``n/a``."""
    if math.isnan(lower) or math.isnan(upper):
        return MISSING
    return f"{percent(lower, digits)} to {percent(upper, digits)}"


def day(value: np.datetime64 | pd.Timestamp) -> str:
    """Return a date as ``2024-05-31``; NaT gives ``n/a``."""
    stamp = pd.Timestamp(value)
    return MISSING if pd.isna(stamp) else stamp.strftime("%Y-%m-%d")


def shortened(text: object, most: int) -> str:
    """Return the text cut to `most` characters, the last one an ellipsis when cut.

    Control characters and line breaks become spaces, since they have no glyph.
    """
    plain = "".join(c if c.isprintable() else " " for c in str(text))
    return plain if len(plain) <= most else plain[: most - 1].rstrip() + "…"
