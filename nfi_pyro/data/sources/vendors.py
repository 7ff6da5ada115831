"""What columns are called: usual names, those of each vendor, and the units that vendors use."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from nfi_pyro.dims import DATE
from nfi_pyro.errors import SpecError

INSTRUMENT = "instrument"
FIELDS = ("open", "high", "low", "close", "volume", "amount")
EXTRA_NUMBERS = ("vwap", "factor", "turnover", "market_cap", "float_shares")
FLAGS = ("st", "suspended")
TEXTS = ("industry",)
PARTS = (DATE, INSTRUMENT, *FIELDS, *EXTRA_NUMBERS, *FLAGS, *TEXTS)

USUAL_NAMES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {part: (part,) for part in PARTS}
    | {
        DATE: ("datetime", "date", "trade_date", "dt", "time", "日期", "交易日期"),
        INSTRUMENT: (
            "instrument",
            "symbol",
            "code",
            "ts_code",
            "sec_code",
            "asset",
            "ticker",
            "order_book_id",
            "代码",
            "股票代码",
            "证券代码",
        ),
        "open": ("open", "开盘", "开盘价"),
        "high": ("high", "最高", "最高价"),
        "low": ("low", "最低", "最低价"),
        "close": ("close", "收盘", "收盘价"),
        "volume": ("volume", "成交量"),
        "amount": ("amount", "成交额"),
        "st": ("st", "is_st"),
        "suspended": ("suspended", "is_suspended"),
    }
)
"""Part to the names it goes by, whoever wrote the table; case, spaces and underscores are free."""


@dataclass(frozen=True)
class Vendor:
    """How one vendor names columns, counts and writes codes.

    Attributes
    ----------
    name : str
        As in ``read_prices(vendor=...)``; empty for an undeclared one.
    names : mapping
        Part to names beyond `USUAL_NAMES`.
    scale : mapping
        Part to the number that turns the vendor's unit into shares or currency units.
    exchange_by_prefix : bool
        See `canonical_symbol`.
    """

    name: str
    names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    scale: Mapping[str, float] = field(default_factory=dict)
    exchange_by_prefix: bool = False


_RICEQUANT: dict[str, tuple[str, ...]] = {"amount": ("total_turnover",)}
VENDORS: Mapping[str, Vendor] = MappingProxyType(
    {
        vendor.name: vendor
        for vendor in (
            Vendor("tushare", {"volume": ("vol",)}, {"volume": 100.0, "amount": 1000.0}),
            Vendor("akshare", scale={"volume": 100.0}, exchange_by_prefix=True),
            Vendor("joinquant", {"amount": ("money",), "suspended": ("paused",)}),
            Vendor("ricequant", _RICEQUANT),
            Vendor("rqalpha", _RICEQUANT),
            Vendor("yahoo"),
        )
    }
)
"""Units are those of the vendors' manuals: tushare's volume is in lots of 100 shares and its amount
in thousands of yuan, akshare's volume in lots; joinquant, ricequant and yahoo count shares."""


def find_vendor(name: str | None) -> Vendor:
    """Return a vendor by name, or one without names and units of its own for None.

    Raises
    ------
    SpecError
        When the name is unknown.
    """
    if name is None:
        return Vendor("")
    if not isinstance(name, str) or name not in VENDORS:
        raise SpecError(
            f"vendor must be one of {', '.join(VENDORS)}; got {name!r}. Leave it out for data in "
            "shares and currency units, and name columns by alias."
        )
    return VENDORS[name]


def plain_name(name: object) -> str:
    """Return a column name without case, spaces and underscores."""
    return "".join(str(name).lower().replace("_", " ").split())
