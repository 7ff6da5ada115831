"""Real prices that need no download: the S&P 500 sample inside skfolio's wheel."""

import numpy as np
import xarray as xr

from nfi_pyro.data.checks.quality import LEDGER_ATTRIBUTE, DropLedger
from nfi_pyro.dims import ASSET, DATE
from nfi_pyro.errors import MissingExtraError


def embedded_prices() -> xr.Dataset:
    """Return daily closes of 20 S&P 500 stocks, 1990-01-02 to 2022-12-28, from skfolio's wheel.

    Returns
    -------
    Dataset, dims (date, asset)
        ``close`` float64, adjusted for splits and dividends, US dollars, no missing cell. No open,
        high, low or volume, so 75 of the 158 Alpha158 features can be computed. The attributes
        ``source``, ``adjustment`` and ``survivorship`` say what the data are and are not.

    Raises
    ------
    MissingExtraError
        When skfolio is not installed.
    """
    try:
        from skfolio.datasets import load_sp500_dataset
    except ImportError as error:
        raise MissingExtraError(
            "skfolio must be installed for embedded_prices; got none. "
            "Run: pip install 'nfi-pyro[portfolio]'"
        ) from error
    frame = load_sp500_dataset()
    close = xr.DataArray(
        frame.to_numpy(dtype=np.float64),
        {DATE: frame.index.to_numpy(), ASSET: np.array(frame.columns, dtype=object)},
        (DATE, ASSET),
        attrs={"units": "USD, adjusted"},
    )
    attrs = {
        "source": "20 S&P 500 stocks (skfolio's load_sp500_dataset)",
        "adjustment": "adjusted closes only; no open, high, low or volume",
        "survivorship": (
            "survivorship bias: the stocks were chosen because they are large and still listed at "
            "the end, so past returns are better than an investor could have had"
        ),
        LEDGER_ATTRIBUTE: DropLedger()
        .add(
            "assets chosen with hindsight (survivorship bias)",
            frame.shape[1],
            "kept",
            frame.columns,
        )
        .to_json(),
    }
    return xr.Dataset({"close": close}, attrs=attrs)
