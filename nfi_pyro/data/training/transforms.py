"""Feature transforms that are fitted on training dates only and travel with the fit.

One centre and one scale per feature, from the training cells that count (tradable and finite).
Every cell is mapped, tradable or not, because a window looks back at rows from before an asset
became tradable. Fitting reads blocks of dates and does not depend on how they are cut.

Source: qlib 0.9.7, ``data/dataset/processor.py``.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from nfi_pyro.data.training.column_statistics import (
    ArrayBlocks,
    FeatureBlocks,
    column_medians,
    column_moments,
    column_range,
    mask_error,
    require_columns,
)
from nfi_pyro.errors import SpecError, name_places

_MAD_TO_SD = 1.4826


@dataclass(frozen=True, eq=False)
class RobustZScore:
    """Median and scaled median absolute deviation per feature, as qlib's RobustZScoreNorm.

    ``(x - median) / ((MAD + 1e-12) * 1.4826)``, clipped at +-`clip`. NaN stays NaN, and an
    infinity becomes NaN, so that clipping does not make it known. A feature that is constant over
    the training cells becomes 0, and +-`clip` where it differs from that constant.

    Attributes
    ----------
    features : tuple of str
        Names, in order.
    center, scale : ndarray, shape (feature,), float64
        In the units of the raw feature.
    clip : float
        Largest absolute value after scaling, dimensionless, > 0.
    """

    name: ClassVar[str] = "robust_zscore"
    keeps_missing: ClassVar[bool] = True
    options: ClassVar[tuple[str, ...]] = ("clip",)

    features: tuple[str, ...]
    center: np.ndarray
    scale: np.ndarray
    clip: float = 3.0

    @classmethod
    def fit(
        cls, values: np.ndarray, mask: np.ndarray, features: tuple[str, ...], clip: float = 3.0
    ) -> "RobustZScore":
        """Return the transform fitted on `values` where `mask` holds.

        Parameters
        ----------
        values : ndarray, shape (date, asset, feature)
            Raw features of the training dates.
        mask : ndarray of bool, shape (date, asset)
            Cells that count.
        features : tuple of str
            Names of the last axis.
        clip : float
            See the class.

        Raises
        ------
        ShapeError, PanelError, SpecError
            See `fit_blocks`.
        """
        if mask.shape != values.shape[:2] or not mask.any():
            raise mask_error(values.shape[:2], mask)
        return cls.fit_blocks(ArrayBlocks(values, mask), features, clip=clip)

    @classmethod
    def fit_blocks(
        cls, blocks: FeatureBlocks, features: tuple[str, ...], *, clip: float = 3.0
    ) -> "RobustZScore":
        """Return the transform fitted on the cells that count, by exact medians.

        Parameters
        ----------
        blocks : FeatureBlocks
            Raw features of the training dates and the mask of the cells that count.
        features : tuple of str
            Names of the last axis.
        clip : float
            See the class.

        Raises
        ------
        ShapeError
            If a mask does not match its values, or no cell counts.
        PanelError
            If a feature is unknown in every training cell that counts.
        SpecError
            If `clip` is not above 0.
        """
        require_clip(clip, cls.name)
        center, deviation = column_medians(blocks, features)
        return cls(tuple(features), center, (deviation + 1e-12) * _MAD_TO_SD, float(clip))

    def apply(self, values: np.ndarray, mask: np.ndarray | None = None) -> np.ndarray:
        """Return `values`, float32 (date, asset, feature), scaled and clipped in place."""
        require_columns(values, self.features)
        center, scale = self.center.astype(np.float32), self.scale.astype(np.float32)
        for rows in values:  # a date at a time stays in cache
            np.copyto(rows, np.nan, where=np.isinf(rows))
            rows -= center
            rows /= scale
            np.clip(rows, -self.clip, self.clip, out=rows)
        return values

    def transform(self, values: np.ndarray) -> np.ndarray:
        """Return scaled and clipped features as a new float32 array of the same shape."""
        return self.apply(values.astype(np.float32))

    def describe(self) -> str:
        """Return the statistics and options in words."""
        return f"training median and MAD per feature, clipped at +-{self.clip:g}"

    def as_dict(self) -> dict[str, object]:
        """Return plain values; floats survive JSON exactly."""
        return {
            "features": list(self.features),
            "center": self.center.tolist(),
            "scale": self.scale.tolist(),
            "clip": self.clip,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, object]) -> "RobustZScore":
        """Return the transform that `as_dict` wrote."""
        names, center, scale = values["features"], values["center"], values["scale"]
        return cls(
            tuple(names),  # type: ignore[arg-type]
            np.asarray(center, dtype=np.float64),
            np.asarray(scale, dtype=np.float64),
            float(str(values["clip"])),
        )


@dataclass(frozen=True, eq=False)
class ZScore:
    """Mean and standard deviation (ddof 0) per feature, as qlib's ZScoreNorm.

    ``(x - mean) / sd``; NaN stays NaN and infinities stay infinite. A feature that is constant
    over the training cells passes as it is.

    Attributes
    ----------
    features : tuple of str
        Names, in order.
    center, scale : ndarray, shape (feature,), float64
        In the units of the raw feature; 0 and 1 for a feature that passes as it is.
    unchanged : tuple of str
        The features that pass as they are.
    """

    name: ClassVar[str] = "zscore"
    keeps_missing: ClassVar[bool] = False  # a large value may overflow
    options: ClassVar[tuple[str, ...]] = ()

    features: tuple[str, ...]
    center: np.ndarray
    scale: np.ndarray
    unchanged: tuple[str, ...] = ()

    @classmethod
    def fit_blocks(cls, blocks: FeatureBlocks, features: tuple[str, ...]) -> "ZScore":
        """Return the transform fitted on the cells that count, in two readings of the blocks.

        Raises
        ------
        ShapeError, PanelError
            As `RobustZScore.fit_blocks`.
        """
        return cls(*_unless_constant(features, *column_moments(blocks, features)))

    def apply(self, values: np.ndarray, mask: np.ndarray | None = None) -> np.ndarray:
        """Return `values`, float32 (date, asset, feature), scaled in place."""
        require_columns(values, self.features)
        center, scale = self.center.astype(np.float32), self.scale.astype(np.float32)
        for rows in values:  # a date at a time stays in cache
            rows -= center
            rows /= scale
        return values

    def describe(self) -> str:
        """Return the statistics in words, and which features pass as they are."""
        return f"training mean and standard deviation per feature{_as_they_are(self.unchanged)}"

    def as_dict(self) -> dict[str, object]:
        """Return plain values; floats survive JSON exactly."""
        return {
            "features": list(self.features),
            "center": self.center.tolist(),
            "scale": self.scale.tolist(),
            "unchanged": list(self.unchanged),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, object]) -> "ZScore":
        """Return the transform that `as_dict` wrote."""
        return cls(
            tuple(values["features"]),  # type: ignore[arg-type]
            np.asarray(values["center"], dtype=np.float64),
            np.asarray(values["scale"], dtype=np.float64),
            tuple(values["unchanged"]),  # type: ignore[arg-type]
        )


@dataclass(frozen=True, eq=False)
class MinMax(ZScore):
    """Training range per feature, as qlib's MinMaxNorm: ``(x - min) / (max - min)``.

    The training cells lie in [0, 1]; later ones need not, and are not clipped. NaN stays NaN and
    infinities stay infinite. A feature that is constant over the training cells passes as it is.
    The attributes are those of `ZScore`, with the least value as centre and the range as scale.
    """

    name: ClassVar[str] = "min_max"

    @classmethod
    def fit_blocks(cls, blocks: FeatureBlocks, features: tuple[str, ...]) -> "MinMax":
        """Return the transform fitted on the cells that count, in one reading of the blocks.

        Raises
        ------
        ShapeError, PanelError
            As `RobustZScore.fit_blocks`.
        """
        _, least, most = column_range(blocks, features)
        return cls(*_unless_constant(features, least, most - least))

    def describe(self) -> str:
        """Return the statistics in words, and which features pass as they are."""
        return f"training least and range per feature{_as_they_are(self.unchanged)}"

    @classmethod
    def from_dict(cls, values: Mapping[str, object]) -> "MinMax":
        """Return the transform that `as_dict` wrote."""
        fitted = ZScore.from_dict(values)
        return cls(fitted.features, fitted.center, fitted.scale, fitted.unchanged)


def require_clip(clip: float, name: str) -> None:
    """Refuse a clip that is not a number above 0."""
    if isinstance(clip, bool) or not isinstance(clip, int | float) or not clip > 0:
        raise SpecError(
            f"clip must be a number > 0; got {clip!r} at {name}. Leave it out for 3 scaled "
            "deviations."
        )


def _unless_constant(
    features: tuple[str, ...], center: np.ndarray, scale: np.ndarray
) -> tuple[tuple[str, ...], np.ndarray, np.ndarray, tuple[str, ...]]:
    """Return the state of a linear map that leaves features with a scale of 0 alone."""
    constant = scale == 0
    unchanged = tuple(name for name, flat in zip(features, constant, strict=True) if flat)
    return (
        tuple(features),
        np.where(constant, 0.0, center),
        np.where(constant, 1.0, scale),
        unchanged,
    )


def _as_they_are(unchanged: tuple[str, ...]) -> str:
    return f"; constant in training and left alone: {name_places(unchanged)}" if unchanged else ""
