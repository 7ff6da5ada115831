"""Errors of the package and the one way their messages are written.

A message reads ``<what> must <rule>; got <value> at <where>. <fix>``, with at most five places
and then a count, so that the reader knows where to look without scrolling.
"""

from collections.abc import Iterable

MAX_PLACES = 5


class NfiError(Exception):
    """Root of every error that this package raises on purpose."""


class PanelError(NfiError, ValueError):
    """Prices or a panel break a rule; the message lists every violation found."""


class SpecError(NfiError, ValueError):
    """A specification, configuration or argument value is out of its range or unknown."""


class ShapeError(NfiError, ValueError):
    """Two arrays that must agree in shape do not."""


class SplitError(NfiError, ValueError):
    """Date spans overlap, are empty, or lie outside the panel."""


class NonFiniteLossError(NfiError, ArithmeticError):
    """The training loss or its gradient was not finite too many times."""


class CheckpointError(NfiError, OSError):
    """A checkpoint could not be written, or what was read is truncated, altered or foreign."""


class RunError(NfiError, ValueError):
    """A run directory is incomplete or was written by an incompatible version."""


class WeightsError(NfiError, ValueError):
    """Portfolio weights do not parse or name assets that the forecast does not have."""


class MissingExtraError(NfiError, ImportError):
    """An optional dependency is not installed."""


def name_places(places: Iterable[object], limit: int = MAX_PLACES) -> str:
    """Return the first `limit` places, comma separated, then how many more there are.

    Parameters
    ----------
    places : iterable
        Anything with a readable ``str``.
    limit : int
        Most places to name.

    Returns
    -------
    str
        For example ``"AAPL, MSFT and 7 more"``; ``"nowhere"`` for no place at all.
    """
    named = [str(place) for place in places]
    if not named:
        return "nowhere"
    shown = ", ".join(named[:limit])
    rest = len(named) - limit
    return f"{shown} and {rest} more" if rest > 0 else shown
