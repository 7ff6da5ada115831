"""The label: the return that an asset will have earned, and one sentence that says which."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from nfi_pyro.dims import ASSET, DATE
from nfi_pyro.errors import PanelError, SpecError

UNITS = ("return", "rank", "excess")
_KINDS = {
    "return": "simple return",
    "rank": "cross-sectional rank of the simple return",
    "excess": "simple return in excess of a benchmark",
}


def forward_return(bars: xr.Dataset, start_lag: int = 1, horizon: int = 1) -> xr.DataArray:
    """Return the simple return from the close of t+start_lag to horizon trading days later.

    ``close[t + start_lag + horizon] / close[t + start_lag] - 1``: decide after the close of t,
    trade at the close of t+start_lag, leave `horizon` trading days later.

    Parameters
    ----------
    bars : Dataset, dims (date, asset)
        With ``close``, adjusted, positive.
    start_lag : int
        Trading days between the date and the entry, >= 0; 1 is the T+1 rule.
    horizon : int
        Trading days held, >= 1.

    Returns
    -------
    DataArray, shape (date, asset), float32
        Decimal. NaN where either close is missing (suspension, end of the data): not observed.
        Attributes start_lag, horizon, unit, long_name, timing.

    Raises
    ------
    PanelError
        When there is no close or there are too few dates for one label.
    SpecError
        When start_lag or horizon is out of range.
    """
    for name, value, least in (("start_lag", start_lag, 0), ("horizon", horizon, 1)):
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
            raise SpecError(f"{name} must be an integer >= {least}; got {value!r}. Count in days.")
    if "close" not in bars or set(bars["close"].dims) != {DATE, ASSET}:
        raise PanelError(
            f"bars must have dims date and asset and a variable close; got dims "
            f"{tuple(bars.sizes)} and variables {sorted(map(str, bars.data_vars))}. "
            "Make them with read_prices."
        )
    price = bars["close"].transpose(DATE, ASSET).to_numpy().astype(np.float64)
    reach = start_lag + horizon
    if len(price) <= reach:
        raise PanelError(
            f"dates must outnumber start_lag + horizon = {reach}; got {len(price)}. "
            "Give a longer history."
        )
    label = np.full(price.shape, np.nan, dtype=np.float32)
    with np.errstate(divide="ignore", invalid="ignore"):
        earned = price[reach:] / price[start_lag : len(price) - horizon] - 1
    label[: len(price) - reach] = np.where(np.isfinite(earned), earned, np.nan)
    attrs: dict[str, Any] = {
        "start_lag": int(start_lag),
        "horizon": int(horizon),
        "unit": "return",
        "long_name": "forward return",
    }
    attrs["timing"] = f"{_span(attrs)}; known at the close of t+{reach}"
    coords = {DATE: bars[DATE], ASSET: bars[ASSET]}
    return xr.DataArray(label, coords, (DATE, ASSET), name="forward_return", attrs=attrs)


def describe_label(attrs: Mapping[Any, Any]) -> str:
    """Return one line on a label for a report, from the attributes of ``forward_return``.

    Raises
    ------
    SpecError
        When start_lag, horizon or unit is missing or unknown.
    """
    missing = [name for name in ("start_lag", "horizon", "unit") if name not in attrs]
    if missing or attrs["unit"] not in _KINDS:
        raise SpecError(
            f"label attributes must have start_lag, horizon and a unit of {UNITS}; got "
            f"{dict(attrs)!r}. Use the attributes of panel['forward_return']."
        )
    known = int(attrs["start_lag"]) + int(attrs["horizon"])
    decimal = "" if attrs["unit"] == "rank" else ", decimal"
    return f"{_KINDS[attrs['unit']]} {_span(attrs)}{decimal}, known at the close of t+{known}"


def _span(attrs: Mapping[Any, Any]) -> str:
    start = int(attrs["start_lag"])
    entry = f"t+{start}" if start else "t"
    return f"from the close of {entry} to the close of t+{start + int(attrs['horizon'])}"
