"""What the Barra styles are computed from, checked and laid out by date."""

import math
from dataclasses import dataclass

import numpy as np
import xarray as xr

from nfi_pyro.data.features.rolling import FloatArray
from nfi_pyro.dims import ASSET, DATE
from nfi_pyro.errors import PanelError, ShapeError, SpecError, name_places

_GIVEN_TURNOVER, _MADE_TURNOVER = "turnover as given", "volume / float_shares"
_CAP_WEIGHTS, _EQUAL_WEIGHTS = "market_cap of the close before", "equal, for want of market_cap"


@dataclass(frozen=True)
class StyleInputs:
    """Checked inputs of the styles, everything known at the close of its date.

    Attributes
    ----------
    dates, assets : DataArray
        Coordinates of the bars.
    priced : ndarray of bool, shape (date, asset)
        Whether there is a close.
    returns : ndarray, shape (date, asset)
        Simple return less the risk-free one, decimal, between closes of neighbouring rows; NaN
        where either is missing.
    log_returns : ndarray, shape (date, asset)
        Log excess return since the last close, decimal: 0 on a row without a close, and the whole
        move on the row of the next one; NaN up to the first close.
    market : ndarray, shape (date,)
        Mean of `returns`, weighted by the market capitalisation of the row before; NaN on the
        first row, and where no return is known.
    member : ndarray of bool, shape (date, asset)
        Assets of the cross-section.
    market_cap, turnover : ndarray, shape (date, asset), optional
        NaN where unknown.
    weights : ndarray, shape (date, asset)
        Market capitalisation of the members, 0 where unknown; 1 for each on a date without any.
    cap_weighted : ndarray of bool, shape (date,)
        Whether `weights` is market capitalisation.
    min_periods : float
        Least share of a window that must be known.
    attributes : dict
        Where the market's weights, the risk-free return and turnover come from.
    """

    dates: xr.DataArray
    assets: xr.DataArray
    priced: np.ndarray
    returns: FloatArray
    log_returns: FloatArray
    market: FloatArray
    member: np.ndarray
    market_cap: FloatArray | None
    turnover: FloatArray | None
    weights: FloatArray
    cap_weighted: np.ndarray
    min_periods: float
    attributes: dict[str, str]

    def least(self, rows: int) -> int:
        """Return how many values of a window of `rows` must be known."""
        return max(1, math.ceil(self.min_periods * rows))


def check_inputs(
    bars: xr.Dataset,
    *,
    market_cap: xr.DataArray | None,
    float_shares: xr.DataArray | None,
    turnover: xr.DataArray | None,
    risk_free: xr.DataArray | None,
    universe: xr.DataArray | None,
    min_periods: float,
) -> StyleInputs:
    """Return the inputs as arrays; see `barra_styles` for the rules and the errors."""
    if isinstance(min_periods, bool) or not 0.0 < min_periods <= 1.0:
        raise SpecError(
            f"min_periods must be in (0, 1]; got {min_periods} at barra_styles. It is a share of "
            "each window: pass for example 0.5."
        )
    if "close" not in bars or set(bars["close"].dims) != {DATE, ASSET}:
        raise PanelError(
            f"bars must have dims date and asset and a variable close; got dims "
            f"{tuple(bars.sizes)} and variables {sorted(map(str, bars.data_vars))}. "
            "Make them with read_prices."
        )
    base = bars["close"].transpose(DATE, ASSET)
    close = _cells(base, base, "close", least_open=True)
    if not np.isfinite(close).any():
        raise PanelError("bars must hold a close; got none in any cell. Check how they were read.")
    caps = _optional(bars, base, "market_cap", market_cap, least_open=True)
    traded, source = _turnover(bars, base, turnover, float_shares)
    rate = _risk_free(base, risk_free)
    member = np.isfinite(close) if universe is None else _members(base, universe)
    returns = np.full(close.shape, np.nan)
    returns[1:] = close[1:] / close[:-1] - 1.0 - rate[1:, None]
    weights, cap_weighted = _weights(caps, member)
    return StyleInputs(
        dates=base[DATE],
        assets=base[ASSET],
        priced=np.isfinite(close),
        returns=returns,
        log_returns=_log_returns(close, rate),
        market=_market(returns, weights),
        member=member,
        market_cap=caps,
        turnover=traded,
        weights=weights,
        cap_weighted=cap_weighted,
        min_periods=float(min_periods),
        attributes={
            "market_weights": _EQUAL_WEIGHTS if caps is None else _CAP_WEIGHTS,
            "risk_free": "0, for want of one" if risk_free is None else "as given",
            "turnover": source,
        },
    )


def _cells(
    array: xr.DataArray, base: xr.DataArray, what: str, *, least_open: bool = False
) -> FloatArray:
    """Return an array (date, asset) as float64 with the labels of `base`, its values checked."""
    if set(array.dims) != {DATE, ASSET}:
        raise ShapeError(
            f"{what} must have the dimensions date and asset; got {tuple(array.dims)} at "
            "barra_styles. Name or expand its dimensions."
        )
    _require_labels(array, base, what)
    values: FloatArray = array.transpose(DATE, ASSET).to_numpy().astype(np.float64)
    wrong = np.argwhere(np.isinf(values) | (values <= 0.0 if least_open else values < 0.0))
    if len(wrong):
        days = np.datetime_as_string(base[DATE].to_numpy().astype("datetime64[ns]"), "D")
        places = [f"{base[ASSET].to_numpy()[column]} {days[row]}" for row, column in wrong[:99]]
        places += [""] * (len(wrong) - len(places))  # they count, though none is named
        raise PanelError(
            f"{what} must be {'>' if least_open else '>='} 0, finite or NaN; got "
            f"{values[tuple(wrong[0])]} at {name_places(places)}. Set NaN where it is unknown."
        )
    return values


def _require_labels(array: xr.DataArray, base: xr.DataArray, what: str) -> None:
    for dim in array.dims:
        if not array.get_index(dim).equals(base.get_index(dim)):
            raise ShapeError(
                f"{what} must have the {dim}s of the bars; got {array.sizes[dim]} against "
                f"{base.sizes[dim]}, or another order, at barra_styles. Select the same ones "
                f"first, for example with .reindex({dim}=bars.{dim})."
            )


def _optional(
    bars: xr.Dataset,
    base: xr.DataArray,
    name: str,
    given: xr.DataArray | None,
    *,
    least_open: bool = False,
) -> FloatArray | None:
    """Return a field as given, or else as in the bars; None where there is neither."""
    if given is None and name not in bars:
        return None
    return _cells(bars[name] if given is None else given, base, name, least_open=least_open)


def _turnover(
    bars: xr.Dataset,
    base: xr.DataArray,
    turnover: xr.DataArray | None,
    float_shares: xr.DataArray | None,
) -> tuple[FloatArray | None, str]:
    """Return the share of an asset that changes hands on a date, in any unit, and its source.

    What is given goes before what the bars hold, and turnover before volume / float_shares. The
    choice is by what there is and never by values: a later value must not change an earlier date.
    """
    given = _optional(bars, base, "turnover", turnover)
    if turnover is not None or (given is not None and float_shares is None):
        return given, _GIVEN_TURNOVER
    shares = _optional(bars, base, "float_shares", float_shares, least_open=True)
    volume = _optional(bars, base, "volume", None)
    if shares is None or volume is None:
        return None, "none"
    return volume / shares, _MADE_TURNOVER


def _risk_free(base: xr.DataArray, risk_free: xr.DataArray | None) -> FloatArray:
    if risk_free is None:
        return np.zeros(base.sizes[DATE])
    if risk_free.dims != (DATE,):
        raise ShapeError(
            f"risk_free must have the dimension date; got {tuple(risk_free.dims)} at "
            "barra_styles. Give one return a date."
        )
    _require_labels(risk_free, base, "risk_free")
    rate: FloatArray = risk_free.to_numpy().astype(np.float64)
    wrong = np.flatnonzero(~np.isfinite(rate) | (rate <= -1.0))
    if len(wrong):
        days = base[DATE].to_numpy()[wrong].astype("datetime64[D]")
        raise PanelError(
            f"risk_free must be finite and > -1, a decimal return by trading date; got "
            f"{rate[wrong[0]]} at {name_places(days)}. Fill it before, and say how."
        )
    return rate


def _members(base: xr.DataArray, universe: xr.DataArray) -> np.ndarray:
    if set(universe.dims) != {DATE, ASSET} or universe.dtype != bool:
        raise ShapeError(
            f"universe must be of truth values by date and asset; got {universe.dtype} over "
            f"{tuple(universe.dims)} at barra_styles. Pass for example a mask of trading_masks."
        )
    _require_labels(universe, base, "universe")
    return np.asarray(universe.transpose(DATE, ASSET).to_numpy())


def _log_returns(close: FloatArray, rate: FloatArray) -> FloatArray:
    """Return log excess returns since the last close; see `StyleInputs`."""
    price = np.log(close) - np.cumsum(np.log1p(rate))[:, None]
    rows = np.where(np.isnan(price), 0, np.arange(len(price))[:, None])
    last = np.maximum.accumulate(rows, axis=0)  # row 0 stands for no close yet: NaN, if it is
    carried = np.take_along_axis(price, last, axis=0)
    moves = np.full(close.shape, np.nan)
    moves[1:] = carried[1:] - carried[:-1]
    return moves


def _weights(caps: FloatArray | None, member: np.ndarray) -> tuple[FloatArray, np.ndarray]:
    """Return weights within each cross-section, and on which dates they are capitalisations."""
    if caps is None:
        return member.astype(np.float64), np.zeros(len(member), dtype=bool)
    known = member & np.isfinite(caps)
    cap_weighted: np.ndarray = np.asarray(known.any(axis=1))
    weights = np.where(cap_weighted[:, None], np.where(known, caps, 0.0), member)
    return weights, cap_weighted


def _market(returns: FloatArray, weights: FloatArray) -> FloatArray:
    """Return the mean excess return (date,), by the weights at the close before."""
    market = np.full(len(returns), np.nan)
    earned = returns[1:]
    known = np.isfinite(earned)
    mass = np.where(known, weights[:-1], 0.0)
    total = mass.sum(axis=1)
    mean = (mass * np.where(known, earned, 0.0)).sum(axis=1)
    market[1:] = np.divide(mean, total, out=np.full(len(total), np.nan), where=total > 0.0)
    return market
