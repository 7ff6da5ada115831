"""The 158 formulas of Alpha158: names, order, the fields each needs and the rows it looks back.

Source: qlib 0.9.7, ``contrib/data/loader.py`` (Alpha158DL). Nine K-bar ratios, four prices, then
29 rolling operators at five windows each. A formula sees a `Block`: the bars of a few assets, with
what several formulas share computed once.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
from numpy.typing import NDArray

from nfi_pyro.data.features.rolling import FloatArray, Pair, Rolling, lagged, window_count

WINDOWS = (5, 10, 20, 30, 60)
EPSILON = 1e-12


class Block:
    """Bars of some assets, arrays (date, asset) float64; NaN stands for a missing field.

    Parameters
    ----------
    fields : dict
        ``open``, ``high``, ``low``, ``close``, ``volume``, ``vwap``, as far as they are known.
    first_row : ndarray of int, shape (asset,)
        The row of each asset's first valid close; negative where it lies before the block.
    single : bool
        Whether ratios and logarithms that enter a window are computed in float32, as qlib does:
        a correlation over five nearly equal ratios shows the difference.
    """

    def __init__(
        self,
        fields: dict[str, FloatArray],
        first_row: NDArray[np.int64],
        *,
        single: bool = False,
    ) -> None:
        absent = np.full_like(fields["close"], np.nan)
        self.close = fields["close"]
        self.open = fields.get("open", absent)
        self.high = fields.get("high", absent)
        self.low = fields.get("low", absent)
        self.volume = fields.get("volume", absent)
        self.vwap = fields.get("vwap", absent)
        self.first_row = first_row
        self._type = np.float32 if single else np.float64
        self._rolling: dict[str, Rolling] = {}
        self._pairs: dict[tuple[str, str], Pair] = {}
        self._shared: dict[tuple[str, int], tuple[FloatArray, ...]] = {}

    @cached_property
    def age(self) -> NDArray[np.int64]:
        """Calendar rows since the first valid close, that row being 1; shape (date, asset)."""
        return np.arange(len(self.close))[:, None] - self.first_row + 1

    @cached_property
    def ratio(self) -> NDArray:
        """Close over the close of the row before."""
        close = self.close.astype(self._type, copy=False)
        return close / lagged(close, 1)

    @cached_property
    def log_volume(self) -> NDArray:
        """Logarithm of volume plus one."""
        return np.log(self.volume.astype(self._type, copy=False) + 1)

    @cached_property
    def log_volume_ratio(self) -> NDArray:
        """Logarithm of one plus volume over the volume of the row before."""
        volume = self.volume.astype(self._type, copy=False)
        return np.log(volume / lagged(volume, 1) + 1)

    @cached_property
    def weighted_move(self) -> NDArray:
        """Absolute simple return times volume."""
        return np.abs(self.ratio - 1) * self.volume.astype(self._type, copy=False)

    @cached_property
    def close_change(self) -> FloatArray:
        """Close minus the close of the row before."""
        return self.close - lagged(self.close, 1)

    @cached_property
    def volume_change(self) -> FloatArray:
        """Volume minus the volume of the row before."""
        return self.volume - lagged(self.volume, 1)

    @cached_property
    def running_counts(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Rises and falls of the close so far; a comparison with NaN is false."""
        before = lagged(self.close, 1)
        return (self.close > before).cumsum(axis=0), (self.close < before).cumsum(axis=0)

    def rolling(self, name: str) -> Rolling:
        """Return the windows of a field or of a series above."""
        if name not in self._rolling:
            self._rolling[name] = Rolling(getattr(self, name), trend=name == "close")
        return self._rolling[name]

    def swings(self, field: str) -> tuple[Rolling, Rolling]:
        """Return the windows of the rises and of the falls of ``close`` or ``volume``."""
        up, down = f"{field} up", f"{field} down"
        if up not in self._rolling:
            change: FloatArray = getattr(self, f"{field}_change")
            self._rolling[up] = Rolling(np.maximum(change, 0))
            self._rolling[down] = Rolling(np.maximum(-change, 0))
        return self._rolling[up], self._rolling[down]

    def correlation(self, left: str, right: str, d: int) -> FloatArray:
        """Return the correlation of two series over windows."""
        if (left, right) not in self._pairs:
            self._pairs[left, right] = Pair(self.rolling(left), self.rolling(right))
        return self._pairs[left, right].correlation(d)

    def shared(
        self, key: str, d: int, compute: Callable[[], tuple[FloatArray, ...]]
    ) -> tuple[FloatArray, ...]:
        """Return what `compute` gives for this key and window, computing it once."""
        if (key, d) not in self._shared:
            self._shared[key, d] = compute()
        return self._shared[key, d]


@dataclass(frozen=True)
class Formula:
    """One feature.

    Attributes
    ----------
    needs : tuple of str
        Fields it cannot do without.
    lookback : int
        Calendar rows it looks at, the current one included.
    compute : callable
        From a `Block` to an array (date, asset) float64.
    """

    needs: tuple[str, ...]
    lookback: int
    compute: Callable[[Block], FloatArray]


def _line(b: Block, d: int) -> tuple[FloatArray, ...]:
    return b.shared("line", d, lambda: b.rolling("close").line(d))


def _quantiles(b: Block, d: int) -> tuple[FloatArray, ...]:
    return b.shared("quantile", d, lambda: b.rolling("close").quantiles(d, (0.8, 0.2)))


def _positions(b: Block, d: int) -> tuple[FloatArray, ...]:
    return b.shared(
        "position",
        d,
        lambda: (
            b.rolling("high").position_of_max(d, b.first_row),
            b.rolling("low").position_of_min(d, b.first_row),
        ),
    )


def _counts(b: Block, d: int) -> tuple[FloatArray, ...]:
    """Return the shares of rises and of falls among all rows of the window, suspended ones too."""

    def compute() -> tuple[FloatArray, ...]:
        rows = np.clip(b.age, 1, d)
        listed = b.age >= 1
        rises, falls = (
            np.where(listed, window_count(running, d) / rows, np.nan)
            for running in b.running_counts
        )
        return rises, falls

    return b.shared("count", d, compute)


def _swings(b: Block, d: int, field: str) -> tuple[FloatArray, ...]:
    """Return sum of rises, sum of falls and sum of absolute changes of a field, plus epsilon."""

    def compute() -> tuple[FloatArray, ...]:
        rises, falls = (series.sum(d) for series in b.swings(field))
        return rises, falls, rises + falls + EPSILON

    return b.shared(f"swing {field}", d, compute)


def _swing(part: str, field: str, b: Block, d: int) -> FloatArray:
    rises, falls, moves = _swings(b, d, field)
    if part == "difference":
        return (rises - falls) / moves
    return (rises if part == "rise" else falls) / moves


def _aroon(b: Block, d: int) -> FloatArray:
    highest, lowest = _positions(b, d)
    return (highest - lowest) / d


def _count_difference(b: Block, d: int) -> FloatArray:
    rises, falls = _counts(b, d)
    return rises - falls


def _stochastic(b: Block, d: int) -> FloatArray:
    highest, lowest = b.rolling("high").max(d), b.rolling("low").min(d)
    return (b.close - lowest) / (highest - lowest + EPSILON)


def _volume_spread(b: Block, d: int) -> FloatArray:
    move = b.rolling("weighted_move")
    return move.std(d) / (move.mean(d) + EPSILON)


def _body(b: Block) -> FloatArray:
    return b.close - b.open


def _range(b: Block) -> FloatArray:
    return b.high - b.low + EPSILON


def _upper(b: Block) -> FloatArray:
    return b.high - np.maximum(b.open, b.close)


def _lower(b: Block) -> FloatArray:
    return np.minimum(b.open, b.close) - b.low


def _shift(b: Block) -> FloatArray:
    return 2 * b.close - b.high - b.low


_SINGLE: dict[str, tuple[str, Callable[[Block], FloatArray]]] = {
    "KMID": ("open close", lambda b: _body(b) / b.open),
    "KLEN": ("open high low", lambda b: (b.high - b.low) / b.open),
    "KMID2": ("open high low close", lambda b: _body(b) / _range(b)),
    "KUP": ("open high close", lambda b: _upper(b) / b.open),
    "KUP2": ("open high low close", lambda b: _upper(b) / _range(b)),
    "KLOW": ("open low close", lambda b: _lower(b) / b.open),
    "KLOW2": ("open high low close", lambda b: _lower(b) / _range(b)),
    "KSFT": ("open high low close", lambda b: _shift(b) / b.open),
    "KSFT2": ("high low close", lambda b: _shift(b) / _range(b)),
    "OPEN0": ("open close", lambda b: b.open / b.close),
    "HIGH0": ("high close", lambda b: b.high / b.close),
    "LOW0": ("low close", lambda b: b.low / b.close),
    "VWAP0": ("vwap close", lambda b: b.vwap / b.close),
}
# operator -> fields, rows beyond the window (1 where the formula uses the row before), function
_ROLLING: dict[str, tuple[str, int, Callable[[Block, int], FloatArray]]] = {
    "ROC": ("close", 1, lambda b, d: lagged(b.close, d) / b.close),
    "MA": ("close", 0, lambda b, d: b.rolling("close").mean(d) / b.close),
    "STD": ("close", 0, lambda b, d: b.rolling("close").std(d) / b.close),
    "BETA": ("close", 0, lambda b, d: _line(b, d)[0] / b.close),
    "RSQR": ("close", 0, lambda b, d: _line(b, d)[1]),
    "RESI": ("close", 0, lambda b, d: _line(b, d)[2] / b.close),
    "MAX": ("high close", 0, lambda b, d: b.rolling("high").max(d) / b.close),
    "MIN": ("low close", 0, lambda b, d: b.rolling("low").min(d) / b.close),
    "QTLU": ("close", 0, lambda b, d: _quantiles(b, d)[0] / b.close),
    "QTLD": ("close", 0, lambda b, d: _quantiles(b, d)[1] / b.close),
    "RANK": ("close", 0, lambda b, d: b.rolling("close").rank(d)),
    "RSV": ("high low close", 0, _stochastic),
    "IMAX": ("high", 0, lambda b, d: _positions(b, d)[0] / d),
    "IMIN": ("low", 0, lambda b, d: _positions(b, d)[1] / d),
    "IMXD": ("high low", 0, _aroon),
    "CORR": (
        "close volume",
        0,
        lambda b, d: b.correlation("close", "log_volume", d),
    ),
    "CORD": (
        "close volume",
        1,
        lambda b, d: b.correlation("ratio", "log_volume_ratio", d),
    ),
    "CNTP": ("close", 1, lambda b, d: _counts(b, d)[0]),
    "CNTN": ("close", 1, lambda b, d: _counts(b, d)[1]),
    "CNTD": ("close", 1, _count_difference),
    "SUMP": ("close", 1, partial(_swing, "rise", "close")),
    "SUMN": ("close", 1, partial(_swing, "fall", "close")),
    "SUMD": ("close", 1, partial(_swing, "difference", "close")),
    "VMA": ("volume", 0, lambda b, d: b.rolling("volume").mean(d) / (b.volume + EPSILON)),
    "VSTD": ("volume", 0, lambda b, d: b.rolling("volume").std(d) / (b.volume + EPSILON)),
    "WVMA": ("close volume", 1, _volume_spread),
    "VSUMP": ("volume", 1, partial(_swing, "rise", "volume")),
    "VSUMN": ("volume", 1, partial(_swing, "fall", "volume")),
    "VSUMD": ("volume", 1, partial(_swing, "difference", "volume")),
}


def _at(compute: Callable[[Block, int], FloatArray], d: int) -> Callable[[Block], FloatArray]:
    return lambda b: compute(b, d)


def _table() -> dict[str, Formula]:
    table = {
        name: Formula(tuple(needs.split()), 1, compute)
        for name, (needs, compute) in _SINGLE.items()
    }
    for name, (needs, extra, compute) in _ROLLING.items():
        for d in WINDOWS:
            table[f"{name}{d}"] = Formula(tuple(needs.split()), d + extra, _at(compute, d))
    return table


FORMULAS: dict[str, Formula] = _table()
"""Name to formula, in native order; 158 of them."""
