"""Who may be traded when: masks, membership spells, age and liquidity, one cause at a time."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

from nfi_pyro.data.checks.quality import LEDGER_ATTRIBUTE, DropLedger
from nfi_pyro.data.market.masks import (
    AGE_UNKNOWN,
    field,
    flag,
    listing_age,
    parse_days,
    trading_masks,
)
from nfi_pyro.data.market.price_limits import PriceLimitTable
from nfi_pyro.data.sources.symbols import canonical_symbols
from nfi_pyro.dims import ASSET, DATE
from nfi_pyro.errors import PanelError, SpecError, name_places

_STILL = pd.Timestamp("2200-01-01")  # a member still; every time unit can hold it
_SPELL_COLUMNS = ["instrument", "start", "end"]
Exclusions = tuple[tuple[str, np.ndarray], ...]


@dataclass(frozen=True)
class UniverseRules:
    """Who belongs to the universe. The defaults take in whatever trades.

    Attributes
    ----------
    min_age : int
        Trading days since the first close, which has age 0. Assets with a close on the first
        date of the bars are of unknown age and count as old enough, unless a listing date says
        otherwise.
    min_amount : float, optional
        Least median of the money traded over the last `liquidity_window` rows, up to and
        including t, in the currency unit of the bars. A row without an amount counts as 0; rows
        before the window is full are out. Without ``amount``, close times volume stands in.
    liquidity_window : int
        Rows of that median, >= 1.
    exclude_st : bool
        Leave out special treatment; needs ``st`` in the bars.
    exclude_limits : bool
        Leave out cells whose close is at a price limit (both sides), at which orders may not be
        filled.
    spells : DataFrame, str or Path, optional
        Membership by spells: columns instrument, start, end (a CSV file, or a qlib instruments
        file without head, tab separated). Both days are inclusive; an empty end is a member
        still; several rows per instrument.
    """

    min_age: int = 0
    min_amount: float | None = None
    liquidity_window: int = 20
    exclude_st: bool = False
    exclude_limits: bool = False
    spells: pd.DataFrame | str | Path | None = None

    def __post_init__(self) -> None:
        for name, least in (("min_age", 0), ("liquidity_window", 1)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise SpecError(
                    f"{name} must be an integer >= {least}; got {value!r}. Count in trading days."
                )
        for name in ("exclude_st", "exclude_limits"):
            if not isinstance(getattr(self, name), bool):
                raise SpecError(
                    f"{name} must be True or False; got {getattr(self, name)!r}. Write it without "
                    "quotes."
                )
        if self.spells is not None and not isinstance(self.spells, pd.DataFrame | str | Path):
            raise SpecError(
                f"spells must be a DataFrame or a path; got {type(self.spells).__name__}. Make a "
                "table of instrument, start, end."
            )
        number = isinstance(self.min_amount, int | float | np.integer | np.floating)
        if self.min_amount is not None and not (number and 0 < self.min_amount < np.inf):
            raise SpecError(
                f"min_amount must be > 0 and finite; got {self.min_amount!r}. It is money traded "
                "in a day, in the unit of the bars."
            )


def tradable_universe(
    bars: xr.Dataset,
    rules: UniverseRules | None = None,
    *,
    limits: PriceLimitTable | None = None,
    prices: str = "adjusted",
    listing_dates: pd.Series | None = None,
) -> tuple[xr.Dataset, Exclusions]:
    """Return the masks of some bars with who is tradable, and each cause that took cells out.

    Parameters
    ----------
    bars : Dataset, dims (date, asset)
        See `trading_masks`; also ``amount`` for a liquidity floor and ``universe`` (bool, known
        at the close of t), which counts besides the spells where both are given.
    rules : UniverseRules, optional
        Default: whatever trades.
    limits, prices, listing_dates
        See `trading_masks`.

    Returns
    -------
    masks : Dataset of bool, dims (date, asset), never missing, known at the close of t
        Those of `trading_masks`, then ``universe`` (a member at t; true throughout when nothing
        says otherwise) and ``tradable`` (none of the causes). The attribute ``ledger`` holds
        findings on the spells as JSON of a `DropLedger`.
    exclusions : tuple of (str, ndarray of bool, shape (date, asset))
        The causes in order, in words, and the cells each applies to; they may overlap.

    Raises
    ------
    PanelError
        When bars or spells break a rule, or lack what a rule needs.
    SpecError
        When an option is out of range.

    Notes
    -----
    Volumes count as known from the first date on which any asset has one, so that data appended
    later never change a date.
    """
    rules = UniverseRules() if rules is None else rules
    if not isinstance(rules, UniverseRules):
        raise SpecError(
            f"rules of a universe must be UniverseRules; got {type(rules).__name__}. Say "
            "UniverseRules(min_age=60)."
        )
    masks = trading_masks(bars, limits=limits, prices=prices, listing_dates=listing_dates)
    member, ledger = _members(bars, rules)
    causes = _untraded(bars)
    if member is not None:
        causes.append(("cells outside the universe (not a member on the date)", ~member))
    if rules.min_age:
        age, _ = listing_age(bars, listing_dates)
        n_unknown = int((age[0] >= AGE_UNKNOWN).sum())
        causes.append(
            (
                f"cells listed for fewer than {rules.min_age} trading days ({n_unknown:,} assets "
                "older than the data count as old enough)",
                age < rules.min_age,
            )
        )
    if rules.min_amount is not None:
        causes.append(_illiquid(bars, rules.min_amount, rules.liquidity_window))
    if rules.exclude_st:
        if "st" not in masks:
            raise PanelError(
                "exclude_st must have a variable st in the bars; got none. Add who is under "
                "special treatment, or leave the rule out."
            )
        causes.append(("cells under special treatment (ST)", masks["st"].to_numpy()))
    if rules.exclude_limits:
        at_limit = (masks["limit_up"] | masks["limit_down"]).to_numpy()
        causes.append((f"closes at a price limit ({masks['limit_up'].attrs['method']})", at_limit))
    tradable = ~np.logical_or.reduce([cells for _, cells in causes])
    everyone = np.ones(tradable.shape, dtype=bool)
    masks["universe"] = _mask(bars, everyone if member is None else member, "member")
    masks["tradable"] = _mask(bars, tradable, "tradable")
    masks.attrs[LEDGER_ATTRIBUTE] = ledger.to_json()
    return masks, tuple(causes)


def _mask(bars: xr.Dataset, cells: np.ndarray, long_name: str) -> xr.DataArray:
    attrs = {"long_name": long_name, "timing": "known at the close of t"}
    return xr.DataArray(cells, {DATE: bars[DATE], ASSET: bars[ASSET]}, (DATE, ASSET), attrs=attrs)


def _untraded(bars: xr.Dataset) -> list[tuple[str, np.ndarray]]:
    """Return the causes for which nothing trades: no price, no volume, suspension."""
    close = field(bars, "close")
    if close is None:
        raise PanelError("bars must have a variable close; got none. Make them with read_prices.")
    causes = [("cells without a close (not listed, suspended, ended)", ~np.isfinite(close))]
    volume = field(bars, "volume")
    if volume is not None:
        started = np.logical_or.accumulate(np.isfinite(volume).any(axis=1))[:, None]
        causes.append(("cells without a volume", started & np.isnan(volume)))
        causes.append(("cells whose volume is 0", ~(volume > 0) & ~np.isnan(volume)))
    suspended = flag(bars, "suspended")
    if suspended is not None:
        causes.append(("cells flagged as suspended", suspended))
    return causes


def _illiquid(bars: xr.Dataset, floor: float, window: int) -> tuple[str, np.ndarray]:
    """Return the cells whose median money traded lies below the floor, or is not known yet."""
    amount, what = field(bars, "amount"), "amount"
    if amount is None:
        close, volume = field(bars, "close"), field(bars, "volume")
        if close is None or volume is None:
            raise PanelError(
                "min_amount must have a variable amount, or volume, in the bars; got neither. "
                "Add one, or leave the rule out."
            )
        amount, what = close * volume, "close x volume (no amount given)"
    traded = pd.DataFrame(np.where(np.isfinite(amount), amount, 0.0))
    median = traded.rolling(window, min_periods=window).median().to_numpy()
    rule = f"cells whose median {what} over {window} rows is below {floor:g}, or not known yet"
    return rule, ~(median >= floor)


def _members(bars: xr.Dataset, rules: UniverseRules) -> tuple[np.ndarray | None, DropLedger]:
    """Return who is a member (date, asset), None when nothing says so, and what was found."""
    ledger = DropLedger()
    member = flag(bars, "universe")
    if rules.spells is None:
        return member, ledger
    by_spell, ledger = _spell_members(bars, read_spells(rules.spells))
    return by_spell if member is None else member & by_spell, ledger


def read_spells(source: pd.DataFrame | str | Path) -> pd.DataFrame:
    """Return membership spells, one a row: instrument (``SH600000``), start, end (inclusive).

    Parameters
    ----------
    source : DataFrame, str or Path
        A table or CSV file with the columns instrument, start and end, or a qlib instruments
        file (``.txt``: tab separated, no head). An empty end means a member still.

    Raises
    ------
    PanelError
        When there is no such file or column, a day does not parse, a start or an instrument is
        missing, or a spell ends before it begins.
    """
    if isinstance(source, pd.DataFrame):
        table = source.reset_index(drop=True)
    else:
        table = _spell_file(Path(source))
    absent = [name for name in _SPELL_COLUMNS if name not in table]
    if absent:
        raise PanelError(
            f"spells must have the columns {', '.join(_SPELL_COLUMNS)}; got no "
            f"{name_places(absent)} among {', '.join(map(str, table.columns))}. Rename them."
        )
    names = table["instrument"].astype("object").where(table["instrument"].notna(), "")
    spells = pd.DataFrame({"instrument": canonical_symbols(names.astype(str))})
    for column in ("start", "end"):
        spells[column], bad = parse_days(table[column])
        if column == "start":
            bad = spells[column].isna() | (spells["instrument"] == "")
        rule = f"{column} of a spell must be a day, for a named instrument"
        _refuse_spells(bad, table, f"{rule}; got {int(bad.sum())} that break this")
    spells["end"] = spells["end"].fillna(_STILL)
    backwards = spells["end"] < spells["start"]
    rule = f"a spell must not end before it starts; got {int(backwards.sum())} that do"
    _refuse_spells(backwards, table, rule)
    return spells


def _refuse_spells(bad: pd.Series, table: pd.DataFrame, rule: str) -> None:
    if bad.any():
        rows = table[bad]
        places = [
            f"row {row} ({name}, {start} to {end})"
            for row, name, start, end in zip(
                rows.index, rows["instrument"], rows["start"], rows["end"], strict=True
            )
        ]
        raise PanelError(
            f"{rule}, at {name_places(places)}. Write "
            "YYYY-MM-DD, and leave the end empty for a member still."
        )


def _spell_file(path: Path) -> pd.DataFrame:
    if not path.is_file():
        raise PanelError(f"spells must be a file; got none at {path}. Check the path.")
    headless = path.suffix.lower() == ".txt"
    try:
        return pd.read_csv(
            path,
            sep="\t" if headless else ",",
            names=_SPELL_COLUMNS if headless else None,
            header=None if headless else "infer",
            usecols=range(3) if headless else None,
            dtype=str,
            keep_default_na=False,
        )
    except (pd.errors.EmptyDataError, pd.errors.ParserError, ValueError, OSError) as error:
        raise PanelError(
            f"spells must be readable; got {' '.join(str(error).split())} at {path}. Write "
            "instrument, start, end: comma separated with a head (.csv), or tab separated "
            "without (.txt)."
        ) from error


def _spell_members(bars: xr.Dataset, spells: pd.DataFrame) -> tuple[np.ndarray, DropLedger]:
    """Return who is within a spell (date, asset), and what is odd about the spells."""
    days = bars[DATE].to_numpy().astype("datetime64[D]")
    assets = pd.Index(canonical_symbols(bars[ASSET].to_numpy().astype(str)))
    if not assets.is_unique:
        raise PanelError(
            "assets of the bars must be different symbols; got two spellings at "
            f"{name_places(assets[assets.duplicated()])}. Keep one of each."
        )
    column = assets.get_indexer(spells["instrument"])
    first = np.searchsorted(days, spells["start"].to_numpy().astype("datetime64[D]"))
    stop = np.searchsorted(days, spells["end"].to_numpy().astype("datetime64[D]"), side="right")
    change = np.zeros((len(days) + 1, len(assets)), dtype=np.int32)
    known = column >= 0
    np.add.at(change, (first[known], column[known]), 1)
    np.add.at(change, (stop[known], column[known]), -1)
    depth = np.cumsum(change, axis=0)[:-1]
    strangers = spells["instrument"][~known].unique()
    if not known.any():
        raise PanelError(
            f"universe spells must name assets of the bars; got {name_places(strangers)}, where "
            f"the bars have {name_places(assets)}. Write symbols as the bars do."
        )
    never = assets[~np.isin(np.arange(len(assets)), column)]
    ordered = spells.sort_values(["instrument", "start"], kind="stable")
    reached = ordered.groupby("instrument")["end"].cummax().groupby(ordered["instrument"]).shift()
    overlapping = ordered["start"] <= reached
    ledger = (
        DropLedger()
        .add(
            "universe spells that overlap an earlier one of their instrument",
            int(overlapping.sum()),
            "merged",
            ordered["instrument"][overlapping].unique(),
        )
        .add("instruments of universe spells without bars", len(strangers), "ignored", strangers)
        .add("assets without a universe spell", len(never), "excluded", never)
    )
    return depth > 0, ledger
