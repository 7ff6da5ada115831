"""Stock codes in one form, so that 600000.SH, sh.600000 and 600000.XSHG are one asset."""

import re
from collections.abc import Iterable

import numpy as np

_EXCHANGES = {
    "SH": "SH",
    "SS": "SH",
    "XSHG": "SH",
    "SZ": "SZ",
    "XSHE": "SZ",
    "BJ": "BJ",
    "XBSE": "BJ",
}
_CODE_FIRST = re.compile(r"([0-9]{6})\.(SH|SS|XSHG|SZ|XSHE|BJ|XBSE)", re.IGNORECASE)
_EXCHANGE_FIRST = re.compile(r"(SH|SZ|BJ)\.?([0-9]{6})", re.IGNORECASE)
_BARE = re.compile(r"[0-9]{6}")
_PREFIXES = (("6", "SH"), ("0", "SZ"), ("2", "SZ"), ("3", "SZ"), ("4", "BJ"), ("8", "BJ"))


def canonical_symbol(text: str, *, exchange_by_prefix: bool = False) -> str:
    """Return a mainland Chinese code in the form ``SH600000``; any other symbol as it is, stripped.

    Parameters
    ----------
    text : str
        ``600000.SH``, ``600000.SS``, ``600000.XSHG``, ``sh.600000`` and ``sh600000`` become
        ``SH600000``; likewise SZ (XSHE) and BJ (XBSE). ``AAPL``, ``BRK.B`` or ``00700.HK`` stay.
    exchange_by_prefix : bool
        Whether six bare digits get their exchange from the first ones: 6 Shanghai; 0, 2, 3
        Shenzhen; 4, 8, 92 Beijing. Right for stocks only (000001 is also an index), so it is done
        only where the vendor is declared.
    """
    text = text.strip()
    if match := _CODE_FIRST.fullmatch(text):
        return _EXCHANGES[match[2].upper()] + match[1]
    if match := _EXCHANGE_FIRST.fullmatch(text):
        return match[1].upper() + match[2]
    if exchange_by_prefix and _BARE.fullmatch(text):
        if text.startswith("92"):
            return "BJ" + text
        for prefix, exchange in _PREFIXES:
            if text.startswith(prefix):
                return exchange + text
    return text


def canonical_symbols(texts: Iterable[str], *, exchange_by_prefix: bool = False) -> np.ndarray:
    """Return `canonical_symbol` of each text, an object array of the same length."""
    return np.array(
        [canonical_symbol(text, exchange_by_prefix=exchange_by_prefix) for text in texts],
        dtype=object,
    )
