"""Portfolio weights from a file, with every defect named."""

from pathlib import Path

import pandas as pd

from nfi_pyro.errors import WeightsError, name_places
from nfi_pyro.portfolio.asset_tables import read_asset_column


def read_weights(path: str | Path) -> pd.Series:
    """Return weights by asset from a CSV file with columns ``asset`` and ``weight``.

    Parameters
    ----------
    path : path
        CSV with a header; the asset column may also be called instrument, symbol, code, ticker
        or ts_code. Weights are fractions of capital (0.05 is 5 percent), of any sign and sum.

    Raises
    ------
    WeightsError
        If the file is missing or empty, a column is missing, a weight does not parse, or an
        asset has no name or two weights.
    """
    found = read_asset_column(path, ("weight",), "weights")
    numbers = pd.to_numeric(found, errors="coerce")
    finite = (numbers.notna() & ~numbers.isin([float("inf"), float("-inf")])).to_numpy()
    if not finite.all():
        lines = found.attrs["lines"]
        bad = [
            f"line {lines[place]} ({found.index[place]}: {found.iloc[place]!r})"
            for place in range(len(found))
            if not finite[place]
        ]
        raise WeightsError(
            f"weights must be finite numbers; got others at {name_places(bad)}. Correct {path}."
        )
    return pd.Series(numbers.to_numpy(dtype=float), index=found.index)
