"""Descriptors of the Barra CNE5 styles, for all assets at once."""

import numpy as np

from nfi_pyro.data.features.rolling import FloatArray
from nfi_pyro.data.features.style_inputs import StyleInputs

YEAR, MONTH = 252, 21  # rows
MOMENTUM_ROWS, MOMENTUM_LAG = 505, 21
"""The source sums over t = L..T+L, both ends included: T + 1 returns, of lags 21 to 525."""
BETA_HALF_LIFE, DASTD_HALF_LIFE, MOMENTUM_HALF_LIFE = 63, 42, 126
_FLAT = 1e-12  # of the squared market returns: rounding of a market that stands still

WINDOWS = {
    "BETA": YEAR,
    "RSTR": MOMENTUM_ROWS,
    "DASTD": YEAR,
    "CMRA": YEAR,
    "HSIGMA": YEAR,
    "STOM": MONTH,
    "STOQ": 3 * MONTH,
    "STOA": YEAR,
}
"""Rows that a descriptor averages over, of which `min_periods` must be known."""


def compute_descriptors(inputs: StyleInputs) -> dict[str, FloatArray]:
    """Return the raw descriptors by name, each (date, asset), known at the close of the date.

    Half-lives turn into weights ``2^(-age / half_life)`` over the rows of a fixed window, unknown
    returns taken out and the others' weights renormalised; NaN where fewer are known than
    ``inputs.least(window)``. Descriptors:

    - ``BETA``: slope of the excess return on the market's, 252 rows, half-life 63, with an
      intercept; ``HSIGMA``: standard deviation of its residual, by the same weights.
    - ``RSTR``: weighted sum of log excess returns, lags 21 to 525, half-life 126.
    - ``DASTD``: standard deviation of excess returns, 252 rows, half-life 42.
    - ``CMRA``: ``ln(1 + Zmax) - ln(1 + Zmin)`` with Z(T) the log excess return of the last T
      months of 21 rows, T = 1..12; ``Zmax - Zmin`` where 1 + Zmin <= 0, where ``cmra_fallback``
      (bool) is true.
    - ``LNCAP``: log of the market capitalisation, where given.
    - ``STOM``, ``STOQ``, ``STOA``: log of the turnover of a mean month of the last 1, 3 and 12,
      where given; NaN where nothing was traded.

    Standard deviations are by the weights alone: no correction for the mean or the slope.

    Parameters
    ----------
    inputs : StyleInputs
    """
    beta, hsigma = _beta(inputs)
    cmra, fallback = _cumulative_range(inputs)
    found = {
        "BETA": beta,
        "RSTR": _momentum(inputs),
        "DASTD": _deviation(inputs),
        "CMRA": cmra,
        "HSIGMA": hsigma,
        "cmra_fallback": fallback,
    }
    if inputs.market_cap is not None:
        found["LNCAP"] = np.log(inputs.market_cap)
    if inputs.turnover is not None:
        for name in ("STOM", "STOQ", "STOA"):
            rows = WINDOWS[name]
            found[name] = _log_turnover(inputs.turnover, rows, inputs.least(rows))
    return found


def window_sum(values: FloatArray, rows: int, half_life: float | None = None) -> FloatArray:
    """Return ``sum_k 2^(-k / half_life) x_{t-k}`` over k = 0..rows - 1, fewer at the start.

    Windows of 1, 2, 4, ... rows are made from pairs, and the window of `rows` from those of its
    binary digits. Nothing is ever subtracted: what has left a window leaves no rounding behind.

    Parameters
    ----------
    values : ndarray, shape (date, ...)
        Finite.
    rows : int
        >= 1.
    half_life : float, optional
        In rows; None weighs all alike.
    """
    fade = 1.0 if half_life is None else 2.0 ** (-1.0 / half_life)
    n = len(values)
    total = np.zeros_like(values)
    part, size, done = values, 1, 0
    while True:
        if rows & size:
            if done < n:
                total[done:] += fade**done * part[: n - done]
            done += size
        if done == rows:
            return total
        longer = part.copy()
        if size < n:
            longer[size:] += fade**size * part[:-size]
        part, size = longer, 2 * size


def _beta(inputs: StyleInputs) -> tuple[FloatArray, FloatArray]:
    """Return slope on the market and the standard deviation of what is left (date, asset)."""
    market = np.broadcast_to(inputs.market[:, None], inputs.returns.shape)
    known = np.isfinite(inputs.returns) & np.isfinite(market)
    x, y = np.where(known, market, 0.0), np.where(known, inputs.returns, 0.0)

    def mean(values: FloatArray) -> FloatArray:
        return window_sum(values, YEAR, BETA_HALF_LIFE) / mass

    enough = window_sum(known.astype(np.float64), YEAR) >= inputs.least(YEAR)
    mass = window_sum(known.astype(np.float64), YEAR, BETA_HALF_LIFE)
    mass = np.where(enough, mass, np.nan)
    x_mean, y_mean, x_square = mean(x), mean(y), mean(x * x)
    spread = x_square - x_mean**2
    spread = np.where(spread > _FLAT * x_square, spread, np.nan)
    shared = mean(x * y) - x_mean * y_mean
    slope = shared / spread
    left = mean(y * y) - y_mean**2 - slope * shared
    return slope, np.sqrt(np.maximum(left, 0.0))  # a sum of squares; below 0 it is rounding


def _deviation(inputs: StyleInputs) -> FloatArray:
    known = np.isfinite(inputs.returns)
    filled = np.where(known, inputs.returns, 0.0)
    enough = window_sum(known.astype(np.float64), YEAR) >= inputs.least(YEAR)
    mass = window_sum(known.astype(np.float64), YEAR, DASTD_HALF_LIFE)
    mass = np.where(enough, mass, np.nan)
    mean = window_sum(filled, YEAR, DASTD_HALF_LIFE) / mass
    square = window_sum(filled**2, YEAR, DASTD_HALF_LIFE) / mass
    return np.sqrt(np.maximum(square - mean**2, 0.0))  # below 0 it is rounding


def _momentum(inputs: StyleInputs) -> FloatArray:
    listed = np.isfinite(inputs.log_returns).astype(np.float64)
    filled = np.where(listed > 0.0, inputs.log_returns, 0.0)
    fade = 0.5 ** (1.0 / MOMENTUM_HALF_LIFE)
    whole = (1.0 - fade**MOMENTUM_ROWS) / (1.0 - fade)
    mass = _later(window_sum(listed, MOMENTUM_ROWS, MOMENTUM_HALF_LIFE), MOMENTUM_LAG)
    total = _later(window_sum(filled, MOMENTUM_ROWS, MOMENTUM_HALF_LIFE), MOMENTUM_LAG)
    n_priced = _later(_priced_rows(inputs, MOMENTUM_ROWS), MOMENTUM_LAG)
    enough = n_priced >= inputs.least(MOMENTUM_ROWS)
    return whole * total / np.where(enough, mass, np.nan)


def _cumulative_range(inputs: StyleInputs) -> tuple[FloatArray, np.ndarray]:
    """Return CMRA, and where 1 + Zmin <= 0 (date, asset)."""
    month = window_sum(np.nan_to_num(inputs.log_returns, nan=0.0), MONTH)
    total = month.copy()
    highest, lowest = month.copy(), month.copy()
    for past in range(MONTH, YEAR, MONTH):
        total += _later(month, past)
        np.maximum(highest, total, out=highest)
        np.minimum(lowest, total, out=lowest)
    enough = _priced_rows(inputs, YEAR) >= inputs.least(YEAR)
    fallback = enough & (lowest <= -1.0)
    safe = np.where(lowest > -1.0, lowest, 0.0)
    logs = np.log1p(np.maximum(highest, safe)) - np.log1p(safe)
    return np.where(enough, np.where(fallback, highest - lowest, logs), np.nan), fallback


def _priced_rows(inputs: StyleInputs, rows: int) -> FloatArray:
    """Return how many rows of each window have a close and a return up to it."""
    known = inputs.priced & np.isfinite(inputs.log_returns)
    return window_sum(known.astype(np.float64), rows)


def _log_turnover(values: FloatArray, rows: int, least: int) -> FloatArray:
    """Return the log of a mean month's turnover over `rows`, NaN where it is 0."""
    known = np.isfinite(values)
    count = window_sum(known.astype(np.float64), rows)
    total = window_sum(np.where(known, values, 0.0), rows)
    defined = (count >= least) & (total > 0.0)
    month = MONTH * total / np.where(defined, count, 1.0)
    return np.log(np.where(defined, month, np.nan))


def _later(values: FloatArray, rows: int) -> FloatArray:
    """Return `values` moved down by `rows`, 0 where there is no such row."""
    moved = np.zeros_like(values)
    if rows < len(values):
        moved[rows:] = values[:-rows]
    return moved
