"""Forward returns: timing, missing closes, and the sentence that describes them."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from nfi_pyro.data import describe_label, forward_return
from nfi_pyro.errors import PanelError, SpecError

CLOSE = np.array([[10, 8], [11, np.nan], [12.1, 9], [6.05, 10], [9.075, 11], [10, 12], [11, 13.0]])


@pytest.fixture
def bars() -> xr.Dataset:
    dates = pd.bdate_range("2023-05-01", periods=7).to_numpy()
    return xr.Dataset({"close": (("date", "asset"), CLOSE)}, {"date": dates, "asset": ["A", "B"]})


def test_default_is_next_close_to_the_one_after(bars: xr.Dataset) -> None:
    label = forward_return(bars)
    assert label.dtype == np.float32
    np.testing.assert_allclose(label[:5, 0], [0.1, -0.5, 0.5, 10 / 9.075 - 1, 0.1], rtol=1e-6)
    np.testing.assert_allclose(
        label[:5, 1], [np.nan, 10 / 9 - 1, 0.1, 12 / 11 - 1, 13 / 12 - 1], rtol=1e-6
    )
    assert label[5:].isnull().all()
    assert label.attrs["timing"] == (
        "from the close of t+1 to the close of t+2; known at the close of t+2"
    )


@pytest.mark.parametrize(("start_lag", "horizon"), [(0, 1), (1, 1), (2, 3), (0, 5)])
def test_lag_and_horizon_count_trading_days(bars: xr.Dataset, start_lag: int, horizon: int) -> None:
    label = forward_return(bars, start_lag=start_lag, horizon=horizon)
    want = CLOSE[start_lag + horizon] / CLOSE[start_lag] - 1
    np.testing.assert_allclose(label[0], want, rtol=1e-6)
    assert int(label[:, 0].notnull().sum()) == 7 - start_lag - horizon
    assert (label.attrs["start_lag"], label.attrs["horizon"]) == (start_lag, horizon)


def test_only_the_two_closes_matter(bars: xr.Dataset) -> None:
    other = bars.copy(deep=True)
    other["close"].values[[0, 1, 4, 5, 6]] = 77.0
    np.testing.assert_array_equal(forward_return(other)[1], forward_return(bars)[1])


def test_description_is_one_sentence(bars: xr.Dataset) -> None:
    assert describe_label(forward_return(bars).attrs) == (
        "simple return from the close of t+1 to the close of t+2, decimal, "
        "known at the close of t+2"
    )
    assert describe_label({"start_lag": 0, "horizon": 5, "unit": "rank"}) == (
        "cross-sectional rank of the simple return from the close of t to the close of t+5, "
        "known at the close of t+5"
    )
    with pytest.raises(SpecError, match="label attributes must have start_lag, horizon"):
        describe_label({"start_lag": 1, "horizon": 1, "unit": "basis points"})
    with pytest.raises(SpecError, match="label attributes must have"):
        describe_label({"start_lag": 1, "unit": "return"})


def test_bad_requests_are_refused(bars: xr.Dataset) -> None:
    with pytest.raises(SpecError, match="start_lag must be an integer >= 0; got -1"):
        forward_return(bars, start_lag=-1)
    with pytest.raises(SpecError, match="horizon must be an integer >= 1; got 0"):
        forward_return(bars, horizon=0)
    with pytest.raises(SpecError, match=r"horizon must be an integer >= 1; got 1\.5"):
        forward_return(bars, horizon=1.5)  # type: ignore[arg-type]
    with pytest.raises(PanelError, match=r"must outnumber start_lag \+ horizon = 7; got 7"):
        forward_return(bars, horizon=6)
    with pytest.raises(PanelError, match="must have dims date and asset and a variable close"):
        forward_return(bars.rename(close="open"))
    with pytest.raises(PanelError, match=r"got dims \('time', 'asset'\)"):
        forward_return(bars.rename(date="time"))
