"""Feature transforms that are fitted on training dates only and travel with the fit."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from nfi_pyro.errors import ShapeError

_MAD_TO_SD = 1.4826


@dataclass(frozen=True)
class RobustZScore:
    """Median and scaled median absolute deviation per feature, as qlib's RobustZScoreNorm.

    ``(x - median) / ((MAD + 1e-12) * 1.4826)``, clipped at +-`clip`; the statistics are over all
    tradable asset-dates of the training span. NaN stays NaN.

    Attributes
    ----------
    features : tuple of str
        Names, in order.
    center, scale : ndarray, shape (feature,)
        In the units of the raw feature.
    clip : float
        Largest absolute value after scaling, dimensionless.
    """

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
        ShapeError
            If the mask does not match, or no cell counts.
        """
        if mask.shape != values.shape[:2] or not mask.any():
            raise ShapeError(
                f"the training mask must have shape {values.shape[:2]} and at least one cell; got "
                f"shape {mask.shape} with {int(mask.sum())} cells. Is the training span in the "
                "panel, and is any asset tradable in it?"
            )
        n_features = values.shape[2]
        center, scale = np.empty(n_features), np.empty(n_features)
        for column in range(n_features):  # one column at a time bounds memory
            known = values[:, :, column][mask].astype(np.float64)
            center[column] = np.nanmedian(known)
            scale[column] = (np.nanmedian(np.abs(known - center[column])) + 1e-12) * _MAD_TO_SD
        return cls(features, center, scale, clip)

    def transform(self, values: np.ndarray) -> np.ndarray:
        """Return scaled and clipped features as a new float32 array of the same shape."""
        if values.shape[-1] != len(self.features):
            raise ShapeError(
                f"features must have {len(self.features)} columns ({', '.join(self.features[:3])}"
                f", ...); got {values.shape[-1]}. Build the panel with the run's features."
            )
        out = values.astype(np.float32)
        out -= self.center.astype(np.float32)
        out /= self.scale.astype(np.float32)
        return np.clip(out, -self.clip, self.clip, out=out)

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
