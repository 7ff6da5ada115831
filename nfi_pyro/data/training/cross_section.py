"""Feature transforms of one date at a time: nothing is fitted, so nothing can leak.

The statistics of a date are over its tradable assets with a finite value. Every asset is then
mapped with them, tradable or not, because a window looks back at rows from before an asset became
tradable. All of them work in place on float32 arrays (date, asset, feature).

Source: qlib 0.9.7, ``data/dataset/processor.py``; its per-date statistics are over all the rows of
the date, which are ours when every row is tradable.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np

from nfi_pyro.data.training.column_statistics import FeatureBlocks
from nfi_pyro.data.training.transforms import require_clip
from nfi_pyro.errors import ShapeError, SpecError

_MAD_TO_SD = 1.4826
_RANK_TO_SD = 3.46  # qlib's: about sqrt(12), which gives uniform ranks unit variance


@dataclass(frozen=True)
class _PerDate(ABC):
    """What these transforms share: no state but their options, and a loop over dates."""

    options: ClassVar[tuple[str, ...]] = ()
    keeps_missing: ClassVar[bool] = False

    @classmethod
    def fit_blocks(cls, blocks: FeatureBlocks, features: tuple[str, ...], **options: Any) -> Self:
        """Return the transform; the blocks are not read, since nothing is fitted."""
        return cls(**options)

    def apply(self, values: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """Return `values`, float32 (date, asset, feature), transformed in place.

        Parameters
        ----------
        values : ndarray, shape (date, asset, feature), float32
            Overwritten.
        mask : ndarray of bool, shape (date, asset)
            Assets whose values enter the statistics of the date.

        Raises
        ------
        ShapeError
            If the mask does not match.
        """
        require_mask(values, mask)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            for date in range(len(values)):  # one date at a time bounds memory
                # (feature, asset): sorting and adding along assets runs over adjacent memory
                values[date] = self._of_date(np.ascontiguousarray(values[date].T), mask[date]).T
        return values

    @abstractmethod
    def _of_date(self, rows: np.ndarray, counts: np.ndarray) -> np.ndarray:
        """Return one date transformed, (feature, asset); `counts` says whose values count."""

    def as_dict(self) -> dict[str, object]:
        """Return the options; floats survive JSON exactly."""
        return {name: getattr(self, name) for name in self.options}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Return the transform that `as_dict` wrote."""
        return cls(**values)


@dataclass(frozen=True)
class CrossSectionZScore(_PerDate):
    """Mean and standard deviation (ddof 1) of each date, as qlib's CSZScoreNorm.

    NaN for all assets of a date on which fewer than two count, or on which those that count are
    all equal. NaN stays NaN; an infinity becomes NaN.
    """

    name: ClassVar[str] = "cs_zscore"

    def _of_date(self, rows: np.ndarray, counts: np.ndarray) -> np.ndarray:
        finite = np.isfinite(rows)
        inside = finite & counts
        known = inside.sum(axis=1, keepdims=True)
        exact = rows.astype(np.float64)
        mean = np.where(inside, exact, 0.0).sum(axis=1, keepdims=True) / known
        squares = np.where(inside, (exact - mean) ** 2, 0.0).sum(axis=1, keepdims=True)
        varies = np.where(inside, rows, -np.inf).max(axis=1) > np.where(inside, rows, np.inf).min(
            axis=1
        )
        sd = np.where(varies[:, None], np.sqrt(squares / (known - 1)), np.nan)
        return np.where(finite, (exact - mean) / sd, np.nan)

    def describe(self) -> str:
        """Return the rule in words."""
        return "mean and standard deviation of each date"


@dataclass(frozen=True)
class CrossSectionRobustZScore(_PerDate):
    """Median and scaled MAD of each date, clipped, as qlib's CSZScoreNorm(method="robust").

    ``(x - median) / MAD / 1.4826``, clipped at +-`clip`. As in qlib, a date whose MAD is 0 gives
    NaN at the median and +-`clip` elsewhere. NaN stays NaN; an infinity becomes NaN.

    Attributes
    ----------
    clip : float
        Largest absolute value, dimensionless, > 0.
    """

    name: ClassVar[str] = "cs_robust_zscore"
    options: ClassVar[tuple[str, ...]] = ("clip",)

    clip: float = 3.0

    def __post_init__(self) -> None:
        require_clip(self.clip, self.name)

    def _of_date(self, rows: np.ndarray, counts: np.ndarray) -> np.ndarray:
        finite = np.isfinite(rows)
        inside = finite & counts
        distance = rows - _medians(np.where(inside, rows, np.nan))
        spread = _medians(np.where(inside, np.abs(distance), np.nan))
        scaled = np.clip(distance / spread / _MAD_TO_SD, -self.clip, self.clip)
        return np.where(finite, scaled, np.nan)

    def describe(self) -> str:
        """Return the rule in words."""
        return f"median and MAD of each date, clipped at +-{self.clip:g}"


@dataclass(frozen=True)
class CrossSectionRank(_PerDate):
    """Percentile rank of each date, centred and scaled, as qlib's CSRankNorm.

    ``(rank / n - 0.5) * 3.46``, ties averaged, over the n assets that count: above -1.73 and up to
    1.73. An asset that does not count is placed among those that do by the same monotone rule,
    ``(below + (equal + 1) / 2) / n``: a tie gets the rank of its equals, a value in between gets a
    rank in between, and one above them all comes out half a step above 1.73. NaN where nothing
    counts. NaN stays NaN; an infinity becomes NaN.
    """

    name: ClassVar[str] = "cs_rank"

    def _of_date(self, rows: np.ndarray, counts: np.ndarray) -> np.ndarray:
        rows = np.where(np.isfinite(rows), rows, np.nan)
        order = np.argsort(rows, axis=1)  # NaN goes last
        ordered = np.take_along_axis(rows, order, axis=1)
        member = counts[order] & ~np.isnan(ordered)
        starts = np.ones(rows.shape, dtype=bool)  # where a run of ties starts
        starts[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
        # members before the run and up to its end, run by run over all features at once
        first = np.flatnonzero(starts.ravel())
        in_run = np.add.reduceat(member.ravel().astype(np.int64), first)
        before = np.cumsum(in_run) - in_run
        n = member.sum(axis=1)
        feature = first // rows.shape[1]
        below = before - (np.cumsum(n) - n)[feature]
        share = (below + (in_run + 1) / 2) / n[feature]
        run = np.cumsum(starts.ravel()) - 1
        ranked = np.empty(rows.shape)
        np.put_along_axis(ranked, order, share[run].reshape(rows.shape), axis=1)
        usable = ~np.isnan(rows) & (n > 0)[:, None]
        return np.where(usable, (ranked - 0.5) * _RANK_TO_SD, np.nan)

    def describe(self) -> str:
        """Return the rule in words."""
        return f"percentile rank of each date less 0.5, times {_RANK_TO_SD}"


@dataclass(frozen=True)
class Fill(_PerDate):
    """A constant in the place of NaN, as qlib's Fillna.

    This makes unknown cells known: whether an asset has a full window is judged after the
    transforms, so a filled asset enters dates that it would otherwise miss. Infinities stay.

    Attributes
    ----------
    value : float
        Finite, in the units that the features have at this step; 0 is the training median after
        robust_zscore.
    """

    name: ClassVar[str] = "fill"
    options: ClassVar[tuple[str, ...]] = ("value",)

    value: float = 0.0

    def __post_init__(self) -> None:
        number = isinstance(self.value, int | float) and not isinstance(self.value, bool)
        if not number or not np.isfinite(self.value):
            raise SpecError(
                f"value must be a finite number; got {self.value!r} at {self.name}. Leave it out "
                "for 0."
            )

    def _of_date(self, rows: np.ndarray, counts: np.ndarray) -> np.ndarray:
        return np.where(np.isnan(rows), np.float32(self.value), rows)

    def describe(self) -> str:
        """Return the rule in words."""
        return f"NaN becomes {self.value:g}, and so known"


@dataclass(frozen=True)
class CrossSectionFill(_PerDate):
    """The mean of the date in the place of NaN, as qlib's CSZFillna.

    This makes unknown cells known; see `Fill`. A feature that no asset of the date has that counts
    stays NaN. Infinities stay, and do not enter the mean.
    """

    name: ClassVar[str] = "cs_fill"

    def _of_date(self, rows: np.ndarray, counts: np.ndarray) -> np.ndarray:
        return np.where(np.isnan(rows), _means(rows, counts), rows)

    def describe(self) -> str:
        """Return the rule in words."""
        return "NaN becomes the mean of its date, and so known"


@dataclass(frozen=True)
class ProcessInf(_PerDate):
    """The mean of the date in the place of infinities, as qlib's ProcessInf.

    NaN stays NaN. An infinity becomes NaN where no asset of the date that counts is finite.
    """

    name: ClassVar[str] = "process_inf"

    def _of_date(self, rows: np.ndarray, counts: np.ndarray) -> np.ndarray:
        return np.where(np.isinf(rows), _means(rows, counts), rows)

    def describe(self) -> str:
        """Return the rule in words."""
        return "an infinity becomes the mean of its date, and so known"


def require_mask(values: np.ndarray, mask: np.ndarray) -> None:
    """Refuse a mask that is not of shape (date, asset) of the values."""
    if mask.shape != values.shape[:2]:
        raise ShapeError(
            f"mask must have the shape (date, asset) of the features, {values.shape[:2]}; got "
            f"{mask.shape}. Take both from the same dates."
        )


def _means(rows: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return float64 (feature, 1), the mean of the finite cells that count; NaN for none."""
    inside = np.isfinite(rows) & counts
    total = np.where(inside, rows.astype(np.float64), 0.0).sum(axis=1, keepdims=True)
    return total / inside.sum(axis=1, keepdims=True)


def _medians(rows: np.ndarray) -> np.ndarray:
    """Return float64 (feature, 1), the median of the cells that are not NaN; NaN for none."""
    ordered = np.sort(rows, axis=1)  # NaN goes last
    known = rows.shape[1] - np.isnan(rows).sum(axis=1, keepdims=True)
    lower = np.take_along_axis(ordered, np.maximum(known - 1, 0) // 2, axis=1)
    upper = np.take_along_axis(ordered, np.minimum(known // 2, rows.shape[1] - 1), axis=1)
    return (lower.astype(np.float64) + upper) / 2
