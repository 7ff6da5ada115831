"""A value by asset from a CSV file, with every defect named."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from nfi_pyro.errors import WeightsError, name_places

ASSET_NAMES = ("asset", "instrument", "symbol", "code", "ticker", "ts_code")


def read_asset_column(path: str | Path, names: Sequence[str], what: str) -> pd.Series:
    """Return the text of one column by asset, indexed by asset.

    Parameters
    ----------
    path : path
        CSV with a header; the asset column may be called asset, instrument, symbol, code, ticker
        or ts_code. Blank lines are skipped.
    names : sequence of str
        What the column may be called, lower case; the first is what an error asks for.
    what : str
        Plural, for messages: ``weights``.

    Returns
    -------
    Series of str
        Stripped, attr `lines` (the line of the file that each row is on).

    Raises
    ------
    WeightsError
        If the file is missing or empty, a column is missing, or an asset has no name or two lines.
    """
    wanted = names[0]
    one = what.removesuffix("s")
    try:
        # Blank lines are read as rows, so that a row's place says its line, and dropped below.
        table = pd.read_csv(path, dtype=str, keep_default_na=False, skip_blank_lines=False)
    except (OSError, UnicodeDecodeError, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise WeightsError(
            f"{what} must be a readable CSV file; got {' '.join(str(error).split())} at "
            f"{path}. Write a header `asset,{wanted}` and one line per asset."
        ) from error
    if not isinstance(table.index, pd.RangeIndex):
        raise WeightsError(
            f"{what} must have as many fields in a line as in the header; got more at {path}. "
            "Quote names that hold commas."
        )
    table = table.fillna("")
    table = table[(table != "").any(axis=1)]
    columns = {str(name).strip().lower(): name for name in table.columns}
    asset = next((columns[name] for name in ASSET_NAMES if name in columns), None)
    value = next((columns[name] for name in names if name in columns), None)
    if asset is None or value is None:
        raise WeightsError(
            f"{what} must have columns asset and {wanted}; got {list(table.columns)} at {path}. "
            "Rename the columns."
        )
    if table.empty:
        raise WeightsError(f"{what} must name at least one asset; got none at {path}. Add lines.")
    assets = table[asset].str.strip()
    if (assets == "").any():
        raise WeightsError(
            f"each {one} must have an asset; got none at "
            f"{name_places(f'line {row + 2}' for row in table.index[assets == ''])} of {path}. "
            "Name it, or delete the line."
        )
    if assets.duplicated().any():
        raise WeightsError(
            f"each asset must have one {one}; got several for "
            f"{name_places(assets[assets.duplicated()].unique())} at {path}. "
            f"{'Add them up' if what == 'weights' else 'Keep one'}."
        )
    found = pd.Series(table[value].to_numpy(), index=pd.Index(assets, name="asset")).str.strip()
    found.attrs["lines"] = (table.index + 2).tolist()
    return found


def read_groups(path: str | Path) -> pd.Series:
    """Return groups by asset, for example industries, from a CSV file.

    Parameters
    ----------
    path : path
        Columns ``asset`` and ``group`` (or industry, sector), see `read_asset_column`.

    Returns
    -------
    Series of str
        An asset with a blank group is left out, as one without a group.

    Raises
    ------
    WeightsError
        See `read_asset_column`; also if no asset has a group.
    """
    found = read_asset_column(path, ("group", "industry", "sector"), "groups")
    found = found[found != ""]
    if found.empty:
        raise WeightsError(f"groups must hold a name; got blanks alone at {path}. Fill them in.")
    return found
