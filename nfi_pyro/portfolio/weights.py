"""Portfolio weights from a file, with every defect named."""

from pathlib import Path

import pandas as pd

from nfi_pyro.errors import WeightsError, name_places

_ASSET_NAMES = ("asset", "instrument", "symbol", "code", "ticker", "ts_code")


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
    try:
        # Blank lines are read as rows, so that a row's place says its line, and dropped below.
        table = pd.read_csv(path, dtype=str, keep_default_na=False, skip_blank_lines=False)
    except (OSError, UnicodeDecodeError, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise WeightsError(
            f"weights must be a readable CSV file; got {' '.join(str(error).split())} at "
            f"{path}. Write a header `asset,weight` and one line per asset."
        ) from error
    if not isinstance(table.index, pd.RangeIndex):
        raise WeightsError(
            f"weights must have as many fields in a line as in the header; got more at {path}. "
            "Quote names that hold commas."
        )
    table = table.fillna("")
    table = table[(table != "").any(axis=1)]
    columns = {str(name).strip().lower(): name for name in table.columns}
    asset = next((columns[name] for name in _ASSET_NAMES if name in columns), None)
    if asset is None or "weight" not in columns:
        raise WeightsError(
            f"weights must have columns asset and weight; got {list(table.columns)} at {path}. "
            "Rename the columns."
        )
    if table.empty:
        raise WeightsError(f"weights must name at least one asset; got none at {path}. Add lines.")
    numbers = pd.to_numeric(table[columns["weight"]], errors="coerce")
    finite = numbers.notna() & ~numbers.isin([float("inf"), float("-inf")])
    if not finite.all():
        bad = [
            f"line {row + 2} ({table[asset][row]}: {table[columns['weight']][row]!r})"
            for row in table.index[~finite]
        ]
        raise WeightsError(
            f"weights must be finite numbers; got others at {name_places(bad)}. Correct {path}."
        )
    names = table[asset].str.strip()
    if (names == "").any():
        raise WeightsError(
            "each weight must have an asset; got none at "
            f"{name_places(f'line {row + 2}' for row in table.index[names == ''])} of {path}. Name "
            "it, or delete the line."
        )
    if names.duplicated().any():
        raise WeightsError(
            f"each asset must have one weight; got several for "
            f"{name_places(names[names.duplicated()].unique())} at {path}. Add them up."
        )
    return pd.Series(numbers.to_numpy(dtype=float), index=pd.Index(names, name="asset"))
